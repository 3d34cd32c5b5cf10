"""Run or read a suite, and compare it with a baseline, or record one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmark.commands.panels import choose_metrics
from benchmark.commands.run import cell_directory, run_suite
from benchmark.config.suite import SuiteConfig, load_suite
from benchmark.core.environment import environment
from benchmark.core.errors import BenchmarkError, ConfigError
from benchmark.core.files import atomic_path
from benchmark.core.hashing import file_digest
from benchmark.core.progress import Progress
from benchmark.data import sources
from benchmark.evaluation.evaluator import Evaluator
from benchmark.gate.baseline import (
    Baseline,
    GateRun,
    ReferenceNetwork,
    Scope,
    read_baseline,
    run_of,
    weights_path,
    write_baseline,
)
from benchmark.gate.probe import probe
from benchmark.gate.verdict import Verdict, judge
from benchmark.records.files import RunFiles
from benchmark.records.study import read_suite
from benchmark.training.build import build_method


def check(
    path: Path,
    *,
    run: Path | None,
    seeds: Sequence[int],
    data_root: Path,
    device: torch.device,
    progress: Progress,
) -> tuple[Verdict, Baseline]:
    """The verdict on the present code, or on the runs in ``run``.

    Args:
        path: path of the baseline.
        run: folder of a suite that has been run; None trains anew in a temporary folder, since runs
            are found by their configuration and a finished one would hide a change of code.
        seeds: seeds to train; default: the first of the baseline.

    Raises:
        BenchmarkError: see ``read_baseline`` and ``judge``; a damaged reference network.
    """
    baseline = read_baseline(path)
    scope = baseline.scope
    suite = _suite(scope)
    seeds = seeds or scope.seeds[:1]
    _check_weights(path, baseline.probe.weights)
    reference = _Reference(path, baseline.probe.of, baseline.probe.weights)
    now = reference.probed(suite, seeds[0], data_root, device, progress)
    if run is not None:
        return judge(baseline, _runs(run, scope), now), baseline
    with tempfile.TemporaryDirectory(prefix="generalist-bench-check-") as folder:
        part = suite.only(scope.methods, seeds)
        _train(part, Path(folder), data_root, device, progress)
        # All seeds of the baseline: the one that is trained may be none of them.
        cells = suite.only(scope.methods, (*scope.seeds, *seeds)).cells()
        hashes = {(cell.label, cell.config.seed): cell.config.hash for cell in cells}
        return judge(baseline, _runs(Path(folder), scope), now, hashes), baseline


def record_baseline(
    path: Path,
    scope: Scope,
    reason: str,
    *,
    data_root: Path,
    device: torch.device,
    progress: Progress,
) -> Baseline:
    """Run ``scope`` and record it as the baseline in ``path``.

    The reference network is that of the first method under attack, first seed.

    Raises:
        ConfigError: fewer than two seeds.
    """
    if len(set(scope.seeds)) < 2:
        raise ConfigError("a baseline needs two seeds or more, to know their spread; see --seed")
    suite = _suite(scope)
    with tempfile.TemporaryDirectory(prefix="generalist-bench-baseline-") as folder:
        out = Path(folder)
        part = suite.only(scope.methods, scope.seeds)
        _train(part, out, data_root, device, progress)
        runs = _runs(out, scope)
        cells = part.cells()
        chosen = next((c for c in cells if c.config.recipe.name == "pgd-at"), cells[0])
        weights = RunFiles(cell_directory(out, chosen)).deployed
        with atomic_path(weights_path(path)) as temporary:
            shutil.copy(weights, temporary)
        digest = file_digest(weights_path(path))
        reference = _Reference(path, f"{chosen.label}, seed {chosen.config.seed}", digest)
        found = reference.probed(suite, scope.seeds[0], data_root, device, progress)
    baseline = Baseline(
        reason=reason,
        scope=scope,
        environment=environment(str(device), torch.get_num_threads()),
        runs=tuple(runs),
        probe=found,
    )
    write_baseline(path, baseline)
    return baseline


def _suite(scope: Scope) -> SuiteConfig:
    suite = load_suite(scope.suite, scope.set, {"dataset": {"limit": scope.limit}})
    chosen = choose_metrics(suite.evaluation, scope.metrics)
    return suite.model_copy(update={"evaluation": tuple(chosen)})


def _train(
    suite: SuiteConfig, out: Path, data_root: Path, device: torch.device, progress: Progress
) -> None:
    diverged = run_suite(suite, suite, out, data_root=data_root, device=device, progress=progress)
    if diverged:
        raise BenchmarkError(f"training diverged, so there is nothing to compare: {diverged[0]}")


def _runs(out: Path, scope: Scope) -> list[GateRun]:
    """The runs in ``out`` that the gate is about."""
    wanted = set(scope.methods)
    cells = [c for c in read_suite(out).cells if not wanted or {c.label, c.method} & wanted]
    if not cells:
        raise BenchmarkError(f"{out} holds no run of {', '.join(scope.methods)}")
    names = scope.metrics or tuple(cells[0].metrics)
    return [run_of(cell, names) for cell in cells]


def _check_weights(path: Path, digest: str) -> None:
    weights = weights_path(path)
    if not weights.is_file() or file_digest(weights) != digest:
        raise BenchmarkError(
            f"{weights} is missing or damaged (the reference network of {path}); restore it, or "
            f"record the baseline anew: generalist-bench record-baseline {path} --reason WHY"
        )


@dataclass(frozen=True)
class _Reference:
    """The network next to the baseline ``path``; for ``of`` and ``weights`` see
    ``ReferenceNetwork``."""

    path: Path
    of: str
    weights: str

    def probed(
        self,
        suite: SuiteConfig,
        attack_seed: int,
        data_root: Path,
        device: torch.device,
        progress: Progress,
    ) -> ReferenceNetwork:
        """The results of the present code on it.

        Raises:
            BenchmarkError: its method has changed.
        """
        label, _, seed = self.of.rpartition(", seed ")
        *_, cell = suite.only([label], [int(seed)]).cells()  # after the runs that it needs
        data = sources.load(suite.dataset, data_root)
        model = build_method(cell.config, data, device).deployed()
        state = torch.load(weights_path(self.path), map_location="cpu", weights_only=True)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise BenchmarkError(
                f"{weights_path(self.path)} does not fit the network of {label}, which changed "
                "since the baseline was recorded; if this is intended, record it anew: "
                f"generalist-bench record-baseline {self.path} --reason WHY"
            ) from error
        return probe(
            model.to(device).eval(),
            data,
            suite.evaluation,
            of=self.of,
            weights=self.weights,
            seed=attack_seed,
            evaluator=Evaluator(data, device, progress=progress, data_root=data_root),
        )
