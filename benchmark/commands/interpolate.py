"""The straight path in weight space between two trained runs, evaluated point by point."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from benchmark.commands.panels import choose_metrics, find_panel, suite_metrics, usual_radii
from benchmark.commands.run import locked, read_cell_config
from benchmark.core.averaging import interpolated
from benchmark.core.errors import ConfigError
from benchmark.core.files import atomic_path
from benchmark.core.progress import Progress
from benchmark.data import sources
from benchmark.evaluation.evaluator import Evaluator
from benchmark.metrics.metric import Metric
from benchmark.records.schema import read_evaluation, write_path
from benchmark.training.build import calibration_batches
from benchmark.training.selection import load_deployed


def interpolate(
    first: Path,
    second: Path,
    out: Path,
    *,
    points: int,
    only: Sequence[str],
    data_root: Path,
    device: torch.device,
    progress: Progress,
) -> pd.DataFrame:
    """Evaluate theta(alpha) = (1 - alpha) * theta_first + alpha * theta_second, alpha = 0 ... 1.

    BatchNorm statistics are re-estimated on clean training images at every point, the ends
    included (SWA, 1803.05407, section 3.2), so an end may differ a little from the run's own
    result. A point already on record is kept.

    Args:
        first, second: folders of trained runs of one suite, of one architecture.
        only: metrics of the suite's panel, all if empty; where there is none, of any panel.

    Returns:
        One row per point and metric: alpha, metric, n, mean; also written to
        ``out/interpolation.csv``.

    Raises:
        ConfigError: runs of different data sets, architectures or panels.
    """
    if points < 2:
        raise ConfigError(f"--points {points}: a path has at least its 2 ends")
    (label, config), (other_label, other) = map(read_cell_config, (first, second))
    if (config.dataset, config.model) != (other.dataset, other.model):
        raise ConfigError(f"{first} and {second} differ in data set or architecture")
    panel: Sequence[Metric] = suite_metrics(first) or suite_metrics(second) or ()
    if not (panel or only):
        raise ConfigError(
            f"neither {first} nor {second} has a suite's folder around it that says what to "
            "measure: name metrics (--metric clean)"
        )
    name = config.dataset.name
    panel = panel or find_panel(only, [usual_radii(name)], name, data_root)
    metrics = choose_metrics(panel, only)
    data = sources.load(config.dataset, data_root)
    start = load_deployed(config, data, first, device)
    end = load_deployed(other, data, second, device)
    if start.state_dict().keys() != end.state_dict().keys():
        raise ConfigError(f"the deployed networks of {first} and {second} have different layers")
    evaluator = Evaluator(
        data, device, progress=progress, data_root=data_root, limit=config.dataset.limit
    )
    rows = []
    with locked([out]):
        ends = {
            "first": f"{label} seed {config.seed}",
            "second": f"{other_label} seed {other.seed}",
        }
        write_path(out, {**ends, "batchnorm": "reestimated"})
        for index in range(points):
            alpha = index / (points - 1)
            folder = out / f"alpha-{alpha:.4f}"
            batches = calibration_batches(data, config.train.batch_size, device)
            model = interpolated(start, end, alpha, batches)
            evaluator.evaluate(model.eval(), metrics, folder)
            record = read_evaluation(folder)["metrics"]
            rows += [
                {"alpha": alpha, "metric": m.name, "n": record[m.name]["n"],
                 "mean": record[m.name]["mean"]} for m in metrics
            ]  # fmt: skip
            progress.say(f"alpha {alpha:.2f}: " + ", ".join(
                f"{m.name} {100 * record[m.name]['mean']:.1f} %" for m in metrics))  # fmt: skip
    table = pd.DataFrame(rows)
    with atomic_path(out / "interpolation.csv") as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    return table


def summary(table: pd.DataFrame) -> list[str]:
    """A sentence per metric: its ends, its lowest and its highest point, and the barrier.

    The barrier is the largest drop below the straight line between the accuracies of the two ends
    (Frankle et al., 1912.05671, of the error).
    """
    lines = []
    for metric, rows in table.groupby("metric", sort=False):
        alpha, value = rows["alpha"].to_numpy(), 100 * rows["mean"].to_numpy()
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
