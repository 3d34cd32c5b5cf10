"""The theorems' quantities along a run's training, and between two that differ in one image."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel
from torch import Tensor, nn

from benchmark.attacks import pgd
from benchmark.attacks.folding import folded_if_same
from benchmark.commands.run import locked, read_cell_config
from benchmark.config.suite import CellConfig
from benchmark.core.averaging import floating_state, move_towards
from benchmark.core.crafting import crafting
from benchmark.core.errors import BenchmarkError, ConfigError
from benchmark.core.progress import Progress
from benchmark.core.threat import ThreatModel
from benchmark.data import sources
from benchmark.data.dataset import Dataset
from benchmark.records import theory
from benchmark.records.files import RunFiles
from benchmark.records.schema import (
    Apart,
    Inequality,
    Regret,
    Theory,
    TheoryPoint,
    read_training,
    write_theory,
)
from benchmark.training.build import build_method, cell_length, held_out_batches
from benchmark.training.snapshots import Snapshot, Weights, load_snapshot, snapshot_steps
from benchmark.training.state import check_same_data


@dataclass(frozen=True)
class _Path:
    """A trained run whose networks were kept.

    Attributes:
        network: of the run's architecture, for weights to be put into.
        tasks: by learner, the ball that it trains in; None for clean images.
    """

    folder: Path
    label: str
    config: CellConfig
    data: Dataset
    network: nn.Module
    tasks: dict[str, ThreatModel | None]
    steps: list[int]

    @property
    def name(self) -> str:
        return f"{self.label} seed {self.config.seed}"


def measure_theory(
    run: Path,
    other: Path | None,
    out: Path,
    *,
    data_root: Path,
    device: torch.device,
    progress: Progress,
) -> Theory:
    """Measure risks, regrets and bounds along the snapshots of ``run``, on the held-out images of
    its validations; with ``other``, also what one training image changes.

    Args:
        other: a run of the same configuration but for ``dataset.without``.
        out: folder for ``theory.json``.

    Raises:
        BenchmarkError: a run that is not trained or kept no snapshots; a damaged record or
            snapshot; other images than the run was trained with.
        ConfigError: a method whose deployed network is no average of its learners'; two runs that
            differ in something else than one image.
    """
    paths = [_read(folder, data_root, device) for folder in (run, other) if folder]
    if other:
        _check_neighbours(*(path.config for path in paths))
    with locked([out]):
        measured = _measure(paths, device, progress)
        write_theory(out, measured)
    return measured


def _read(folder: Path, data_root: Path, device: torch.device) -> _Path:
    label, config = read_cell_config(folder)
    if not config.train.snapshots:
        raise BenchmarkError(
            f"{folder} kept no networks while training; train it with train.snapshots, such as "
            "--set train.snapshots=24"
        )
    if not RunFiles(folder).training.exists():
        raise BenchmarkError(f"{folder} holds no trained run; train one first (see run)")
    data = sources.load(config.dataset, data_root)
    check_same_data(read_training(folder)["data"], data, RunFiles(folder).training)
    method = build_method(config, data, device)
    if method.mixture(0.0, 0) is None:
        raise ConfigError(
            f"{folder}: the network that {label} deploys is no moving average of its learners' "
            "weights (as that of generalist-d or ema is), so the theorems' inequalities do not "
            "apply to it"
        )
    steps = cell_length(config, len(data.train)).steps
    return _Path(
        folder=folder,
        label=label,
        config=config,
        data=data,
        network=copy.deepcopy(method.deployed()).eval(),
        tasks={
            name: _threat(learner.config.objective) for name, learner in method.learners.items()
        },
        steps=snapshot_steps(config.train.snapshots, steps),
    )


def _threat(part: Any) -> ThreatModel | None:
    """The first threat model in an objective, which may wrap others; None if there is none."""
    if isinstance(part, ThreatModel):
        return part
    inside: list[Any] = []
    if isinstance(part, BaseModel):
        inside = [getattr(part, name) for name in type(part).model_fields]
    elif isinstance(part, tuple | list):
        inside = list(part)
    return next((found for item in inside if (found := _threat(item))), None)


def _check_neighbours(one: CellConfig, other: CellConfig) -> None:
    if one.dataset.without == other.dataset.without:
        raise ConfigError(
            "both runs were trained on the same images; train one of them without an image, "
            "--set dataset.without=0"
        )

    def rest(config: CellConfig) -> CellConfig:
        dataset = config.dataset.model_copy(update={"without": None})
        return config.model_copy(update={"dataset": dataset, "needs": {}})

    if rest(one).hash != rest(other).hash:
        raise ConfigError(
            "the runs differ in more than dataset.without; take two of the same method, seed and "
            "settings"
        )


def _measure(paths: Sequence[_Path], device: torch.device, progress: Progress) -> Theory:
    run = paths[0]
    names = list(run.tasks)
    seen: list[list[_Seen]] = []
    distances: list[list[float]] = []
    with progress.task("theory", len(run.steps) * len(paths)) as task:
        for step in run.steps:
            seen.append([])
            networks = []
            for path in paths:
                snapshot = load_snapshot(path.folder, step)
                networks.append(_networks(path, snapshot))
                seen[-1].append(_look(path, snapshot, networks[-1], device))
                task.advance(1)
            distances.append([_distance(*pair) for pair in zip(*networks, strict=True)])
    own = [both[0] for both in seen]
    c = theory.shares(
        np.array([[one.ratios[name] for name in names] for one in own]),
        np.array([one.kept for one in own]),
    )
    losses = np.stack([one.losses for one in own])
    every_step = run.steps == list(range(1, len(own) + 1))
    bounds = theory.risk_bounds(c, losses, tuple(names), every_step=every_step)
    apart: Sequence[Apart | None] = [None] * len(own)
    if len(paths) > 1:
        apart = _stability(c, seen, np.array(distances), names, every_step)
    risks = losses.mean(axis=3)
    points = [
        TheoryPoint(
            step=one.step,
            progress=one.progress,
            ratios=one.ratios,
            weights=dict(zip(names, c[i].sum(axis=0).tolist(), strict=True)),
            checked=one.parted and (every_step or i > 0),
            risks=_by_network(risks[i], names),
            bounds={name: _inequality(sides, i) for name, sides in bounds.items()},
            stability=apart[i],
        )
        for i, one in enumerate(own)
    ]
    return Theory(
        run=run.name,
        other=paths[1].name if len(paths) > 1 else None,
        without=[path.config.dataset.without for path in paths],
        images=own[0].losses.shape[2],
        tasks={name: _in_words(threat) for name, threat in run.tasks.items()},
        points=points,
        regrets={
            name: Regret(mean=mean, best=best, regret=regret)
            for k, name in enumerate(names)
            for mean, best, regret in [theory.regret(risks[:, k, k])]
        },
    )


@dataclass(frozen=True)
class _Seen:
    """What was measured of a snapshot.

    Attributes:
        losses: [networks, tasks, images]: of the learners, the deployed network, and the mixture of
            the learners as they are at this step.
        norm: of the deployed network's parameters.
    """

    step: int
    progress: float
    ratios: dict[str, float]
    kept: float
    parted: bool
    losses: np.ndarray
    norm: float


def _networks(path: _Path, snapshot: Snapshot) -> list[nn.Module]:
    """The learners and the deployed network."""
    states = [*snapshot.learners.values(), snapshot.deployed]
    return [_with(path.network, state) for state in states]


def _look(
    path: _Path, snapshot: Snapshot, networks: Sequence[nn.Module], device: torch.device
) -> _Seen:
    assert snapshot.ratios is not None
    *learners, deployed = networks
    mixture = copy.deepcopy(deployed)
    states_of = [floating_state(learner) for learner in learners]
    ratios = [snapshot.ratios[name] for name in snapshot.learners]
    move_towards(floating_state(mixture), states_of, ratios, 0.0)
    losses = [
        [_losses(network, threat, path, device) for threat in path.tasks.values()]
        for network in (*networks, mixture)
    ]
    whole = [floating_state(network) for network in networks]
    return _Seen(
        step=snapshot.step,
        progress=snapshot.progress,
        ratios=snapshot.ratios,
        kept=snapshot.kept,
        parted=not all(
            torch.equal(one, two)
            for learner in whole[:-1]
            for one, two in zip(learner, whole[-1], strict=True)
        ),
        losses=np.array(losses),
        norm=_norm(floating_state(deployed, buffers=False)),
    )


def _with(network: nn.Module, state: Weights) -> nn.Module:
    model = copy.deepcopy(network)
    model.load_state_dict(state)
    return model.eval()


def _losses(
    model: nn.Module, threat: ThreatModel | None, path: _Path, device: torch.device
) -> list[float]:
    """Cross-entropy of each held-out image, clean, or at the last iterate of PGD on ``model``."""
    generator = torch.Generator(device=device).manual_seed(0)
    found: list[float] = []
    crafted_on: nn.Module | None = None
    with crafting(model):
        for x, y in held_out_batches(path.data, path.config.train, device):
            if threat is not None:
                if crafted_on is None:
                    with torch.no_grad():
                        crafted_on = folded_if_same(model, x, model(x))
                x = pgd(crafted_on, x, y, threat, generator=generator)
            with torch.no_grad():
                found += F.cross_entropy(model(x), y, reduction="none").double().tolist()
    return found


def _stability(
    c: np.ndarray,
    seen: Sequence[Sequence[_Seen]],
    distances: np.ndarray,
    names: list[str],
    every_step: bool,
) -> list[Apart]:
    networks = [*names, theory.DEPLOYED]
    count = len(networks)
    differences = np.stack([np.abs(a.losses - b.losses)[:count] for a, b in seen])
    mean, largest = theory.loss_stability(c, differences, every_step=every_step)
    bounds = {
        "parameters": theory.distance_bound(c, distances, every_step=every_step),
        "mean loss": mean,
        "largest loss": largest,
    }
    return [
        Apart(
            distances=dict(zip(networks, distances[i].tolist(), strict=True)),
            norm=a.norm,
            mean=_by_network(differences[i].mean(axis=2), names),
            largest=_by_network(differences[i].max(axis=2), names),
            bounds={name: _inequality(sides, i) for name, sides in bounds.items()},
        )
        for i, (a, _) in enumerate(seen)
    ]


def _distance(*networks: nn.Module) -> float:
    """Between the parameters of two networks; 0 for one alone."""
    first, last = (floating_state(networks[n], buffers=False) for n in (0, -1))
    return _norm(torch._foreach_sub(first, last))


def _norm(weights: Sequence[Tensor]) -> float:
    return float(torch.stack([weight.norm() for weight in weights]).norm())


def _by_network(values: np.ndarray, names: list[str]) -> dict[str, dict[str, float]]:
    networks = [*names, theory.DEPLOYED, theory.MIXTURE][: len(values)]
    return {
        network: dict(zip(names, row.tolist(), strict=True))
        for network, row in zip(networks, values, strict=True)
    }


def _inequality(sides: theory.Sides, point: int) -> Inequality:
    return Inequality(
        left=float(sides.left[point]),
        right=float(sides.right[point]),
        error=float(sides.error[point]),
    )


def _in_words(threat: ThreatModel | None) -> str:
    if threat is None:
        return "cross-entropy on clean images"
    return f"cross-entropy under PGD-{threat.steps}, {threat.norm} eps {threat.eps}"
