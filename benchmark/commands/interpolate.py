"""Networks between trained ones in weight space, evaluated point by point."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from benchmark.commands.panels import choose_metrics, find_panel, suite_metrics, usual_radii
from benchmark.commands.run import locked, read_cell_config
from benchmark.config.suite import CellConfig
from benchmark.core.averaging import mixed
from benchmark.core.environment import environment
from benchmark.core.errors import ConfigError
from benchmark.core.files import atomic_path
from benchmark.core.method import Method, family_of
from benchmark.core.progress import Progress
from benchmark.data import sources
from benchmark.data.dataset import Dataset
from benchmark.evaluation.evaluator import Evaluator
from benchmark.metrics.metric import Metric
from benchmark.records.files import RunFiles
from benchmark.records.schema import read_evaluation, write_environment, write_model, write_path
from benchmark.training import checkpoint
from benchmark.training.build import build_method, calibration_batches, cell_length
from benchmark.training.parted import bring_apart, differ
from benchmark.training.selection import load_deployed
from benchmark.training.snapshots import load_snapshot, snapshot_steps
from benchmark.training.state import check_same_data

# A path between runs is an average of weights, whatever trained its ends.
_FAMILY = "weight averaging"


@dataclass(frozen=True)
class _Ends:
    """Networks of one architecture that are mixed.

    Attributes:
        networks: by what they are called.
        front, label, family: of all mixtures in reports, and how the label of each begins.
        step: of base learners.
    """

    networks: dict[str, nn.Module]
    front: str
    label: str
    family: str
    step: int | None = None


def interpolate(
    first: Path,
    second: Path | None,
    out: Path,
    *,
    points: int,
    only: Sequence[str],
    data_root: Path,
    device: torch.device,
    progress: Progress,
) -> pd.DataFrame:
    """Evaluate theta(gamma) = sum_k gamma_k * theta_k, the gamma_k on a grid and summing to 1.

    The theta_k are the deployed networks of two runs, or the base learners of one, as they were
    when they last differed. With two networks, alpha is the share of the second.

    BatchNorm statistics are re-estimated on clean training images at every point, the ends
    included (SWA, 1803.05407, section 3.2), so an end may differ a little from the run's own
    result. A point already on record is kept. Each is a row of a report that is given ``out``
    beside the suite, and all are a front of it.

    Args:
        first, second: folders of trained runs of one suite, of one architecture; None for the base
            learners of the first.
        points: from one network to another, ends included.
        only: metrics of the suite's panel, all if empty; where there is none, of any panel.

    Returns:
        One row per point and metric: alpha (more than two networks: the share of each, by name),
        metric, n, mean; also written to ``out/interpolation.csv``.

    Raises:
        ConfigError: runs of different data sets, architectures or panels; a run without base
            learners to mix.
        CheckpointError: no checkpoint, or a damaged one.
    """
    if points < 2:
        raise ConfigError(f"--points {points}: a path has at least its 2 ends")
    label, config = read_cell_config(first)
    panel: Sequence[Metric] = (
        suite_metrics(first) or (suite_metrics(second) if second else ()) or ()
    )
    if not (panel or only):
        raise ConfigError(
            f"neither {first} nor {second} has a suite's folder around it that says what to "
            "measure: name metrics (--metric clean)"
            if second
            else f"{first} has no suite's folder around it that says what to measure: name metrics "
            "(--metric clean)"
        )
    name = config.dataset.name
    panel = panel or find_panel(only, [usual_radii(name)], name, data_root)
    metrics = choose_metrics(panel, only)
    if second is None:
        data = sources.load(config.dataset, data_root)
        ends = _learners(label, config, data, first, device)
    else:
        other_label, other = read_cell_config(second)
        if (config.dataset, config.model) != (other.dataset, other.model):
            raise ConfigError(f"{first} and {second} differ in data set or architecture")
        data = sources.load(config.dataset, data_root)
        names = f"{label} seed {config.seed}", f"{other_label} seed {other.seed}"
        if names[0] == names[1]:
            names = str(first), str(second)
        deployed = [
            load_deployed(config, data, first, device),
            load_deployed(other, data, second, device),
        ]
        between = f"{label} to {other_label}"
        networks = dict(zip(names, deployed, strict=True))
        ends = _Ends(networks, between, between, _FAMILY)
    return _evaluate(ends, points, config, data, metrics, out, data_root, device, progress)


def _learners(
    label: str, config: CellConfig, data: Dataset, folder: Path, device: torch.device
) -> _Ends:
    """The base learners of a run as they were when they last differed, as far as that was kept: in
    a checkpoint, else in a snapshot."""
    path = RunFiles(folder).checkpoint
    state = checkpoint.load(path)
    check_same_data(str(state["data"]), data, path)
    method = build_method(config, data, device)
    method.load_state_dict(state["method"])
    step = bring_apart(method, state, path) if len(method.learners) > 1 else None
    if step is None and method.mixture(0.0, 0) is not None:
        step = _parted_in_snapshots(method, config, data, folder)
    if step is None:
        raise ConfigError(
            f"{folder} kept no base learners that differ; give a second run to interpolate to, or "
            "train a Generalist with train.snapshots"
        )
    return _Ends(
        method.alone(),
        f"{label} mixed after training",
        f"{label} mixed",
        family_of(config.recipe.name),
        step,
    )


def _parted_in_snapshots(
    method: Method, config: CellConfig, data: Dataset, folder: Path
) -> int | None:
    steps = snapshot_steps(config.train.snapshots, cell_length(config, len(data.train)).steps)
    for step in reversed(steps):
        snapshot = load_snapshot(folder, step)
        for name, learner in method.learners.items():
            learner.model.load_state_dict(snapshot.learners[name])
        if differ(method):
            return step
    return None


def _evaluate(
    ends: _Ends,
    points: int,
    config: CellConfig,
    data: Dataset,
    metrics: Sequence[Metric],
    out: Path,
    data_root: Path,
    device: torch.device,
    progress: Progress,
) -> pd.DataFrame:
    names, networks = list(ends.networks), list(ends.networks.values())
    if len({tuple((k, v.shape) for k, v in net.state_dict().items()) for net in networks}) > 1:
        raise ConfigError(f"{' and '.join(names)} are networks with different layers")
    evaluator = Evaluator(
        data, device, progress=progress, data_root=data_root, limit=config.dataset.limit
    )
    rows = []
    grid = {_folder(shares): shares for shares in _grid(len(names), points - 1)}
    with locked([out]):
        head = {"front": ends.front, "ends": names, "step": ends.step, "batchnorm": "reestimated"}
        write_path(out, {**head, "points": list(grid)})
        for name, shares in grid.items():
            folder = out / name
            model = mixed(
                networks, shares, calibration_batches(data, config.train.batch_size, device)
            )
            said = ", ".join(f"{end} {s:.2f}" for end, s in zip(names, shares, strict=True))
            # The first share is what the others leave.
            label = " ".join([ends.label, *(f"{share:.2f}" for share in shares[1:])])
            _describe(folder, ends, label, config, device)
            evaluator.evaluate(model.eval(), metrics, folder)
            record = read_evaluation(folder)["metrics"]
            at = dict(zip(names, shares, strict=True)) if len(names) > 2 else {"alpha": shares[1]}
            rows += [
                {**at, "metric": m.name, "n": record[m.name]["n"], "mean": record[m.name]["mean"]}
                for m in metrics
            ]
            progress.say(f"{said}: " + ", ".join(
                f"{m.name} {100 * record[m.name]['mean']:.1f} %" for m in metrics))  # fmt: skip
    table = pd.DataFrame(rows)
    with atomic_path(out / "interpolation.csv") as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    return table


def _grid(count: int, parts: int) -> list[tuple[float, ...]]:
    """All shares of ``count`` networks that are multiples of 1 / ``parts`` and sum to 1, from those
    of the first network alone to those of the last."""
    found = [
        tuple((b - a - 1) / parts for a, b in itertools.pairwise((-1, *bars, parts + count - 1)))
        for bars in itertools.combinations(range(parts + count - 1), count - 1)
    ]
    return found[::-1]


def _folder(shares: Sequence[float]) -> str:
    if len(shares) == 2:
        return f"alpha-{shares[1]:.4f}"
    return "gamma-" + "-".join(f"{share:.4f}" for share in shares)


def _describe(
    folder: Path, ends: _Ends, label: str, config: CellConfig, device: torch.device
) -> None:
    """Write into ``folder`` what is measured there, for reports."""
    write_environment(folder, environment(str(device), torch.get_num_threads()))
    source = "two runs" if ends.step is None else f"the base learners at step {ends.step}"
    write_model(
        folder,
        {
            "model": label,
            "checkpoint": None,
            "dataset": config.dataset.model_dump(mode="json"),
            "notes": [f"weights of {source} averaged, BatchNorm re-estimated"],
            "family": ends.family,
            "seed": config.seed,
        },
    )


def summary(table: pd.DataFrame) -> list[str]:
    """A sentence per metric: its ends, its lowest and its highest point, and the barrier. Between
    more than two networks, which have no alpha: its lowest and its highest point.

    The barrier is the largest drop below the straight line between the accuracies of the two ends
    (Frankle et al., 1912.05671, of the error).
    """
    lines = []
    for metric, rows in table.groupby("metric", sort=False):
        value = 100 * rows["mean"].to_numpy()
        if "alpha" not in rows:
            lines.append(f"{metric}: lowest {value.min():.1f} %, highest {value.max():.1f} %.")
            continue
        alpha = rows["alpha"].to_numpy()
        first, last = value[0], value[-1]
        text = f"{metric}: {first:.1f} % at alpha 0, {last:.1f} % at alpha 1"
        if len(value) > 2:
            low, high = int(value.argmin()), int(value.argmax())
            below = first + alpha * (last - first) - value
            deep = int(below.argmax())
            text += (
                f"; lowest {value[low]:.1f} % at alpha {alpha[low]:.2f}, highest "
                f"{value[high]:.1f} % at alpha {alpha[high]:.2f}"
            )
            text += (
                f"; at most {below[deep]:.1f} points below the line between the ends, at alpha "
                f"{alpha[deep]:.2f}"
                if below[deep] >= 0.05
                else "; nowhere below the line between the ends"
            )
        lines.append(text + ".")
    return lines
