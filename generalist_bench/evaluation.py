"""``evaluate``: measures a network on images in memory, with confidence intervals."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import nn

from benchmark.commands.evaluate_model import evaluate_given
from benchmark.commands.figures import read_figures
from benchmark.commands.options import Options
from benchmark.commands.panels import Eps, metrics_at
from benchmark.commands.request import EvaluationRequest
from benchmark.commands.run import pick_device
from benchmark.core.crafting import crafting
from benchmark.core.errors import ConfigError
from benchmark.core.files import data_folder
from benchmark.core.generators import generators_kept
from benchmark.core.progress import Progress
from benchmark.core.threat import Pixels
from benchmark.data.given import split_of
from benchmark.metrics.metric import Metric
from benchmark.records.files import RunFiles
from benchmark.records.outcomes import read_outcomes
from benchmark.records.schema import read_evaluation
from generalist_bench._words import in_python_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmark.data.dataset import Split

METRICS = ("clean", "pgd20_linf", "aa_linf")
Asked = Sequence[str | Mapping[str, Any] | Metric]


@dataclass(frozen=True)
class Finding:
    """A reason to doubt the attacks on the network: a short name, and a sentence with a figure."""

    name: str
    text: str


@dataclass(frozen=True)
class Result:
    """The results of an evaluation.

    Attributes:
        outcomes: a row per test image with its ``label`` and, for each metric, whether the network
            was right (True), wrong (False) or not tested (missing).
        findings: reasons to doubt the attacks, from the reliability checks; empty if there are
            none.
        warnings: warnings of AutoAttack, by metric.
        record: the content of ``evaluation.json``.
        folder: the folder of the record; None if no ``out`` was given.
    """

    outcomes: pd.DataFrame
    findings: tuple[Finding, ...]
    warnings: Mapping[str, tuple[str, ...]]
    record: Mapping[str, Any]
    folder: Path | None
    _figures: Mapping[str, Mapping[str, Any]]

    def table(self) -> pd.DataFrame:
        """A row per metric; numbers are numbers, not text.

        Columns: ``value`` (an accuracy in [0, 1], if the metric is an accuracy), its 95 % interval
        ``low`` to ``high`` for new images (NaN if a figure has none), ``n`` images, ``norm`` and
        ``eps`` of an attack, and all ``settings`` as text.
        """
        rows = {}
        for name, figure in self._figures.items():
            entry = self.record["metrics"][name]
            norm, eps = entry["ball"] or ("", "nan")
            rows[name] = {
                "value": figure["mean"],
                "low": figure.get("population_low", figure.get("low", float("nan"))),
                "high": figure.get("population_high", figure.get("high", float("nan"))),
                "n": figure["n"],
                "norm": norm,
                "eps": float("nan") if eps == "nan" else float(Pixels(eps)),
                "settings": entry["description"] or figure["settings"],
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("metric")

    def __repr__(self) -> str:
        lines = [self._shown().to_string()]
        return "\n".join([*lines, *self._doubts()])

    def _repr_html_(self) -> str:
        doubts = "".join(f"<li>{html.escape(line)}</li>" for line in self._doubts())
        return self._shown().to_html() + (f"<ul>{doubts}</ul>" if doubts else "")

    def _shown(self) -> pd.DataFrame:
        """The table for display: in per cent, with radii as the user wrote them."""
        table = self.table()
        bounds = zip(table["low"], table["high"], strict=True)
        entries = [self.record["metrics"][name]["ball"] for name in table.index]
        return pd.DataFrame(
            {
                "%": [f"{100 * value:.1f}" for value in table["value"]],
                "95 % interval": [
                    "-" if low != low else f"[{100 * low:.1f}, {100 * high:.1f}]"
                    for low, high in bounds
                ],
                "n": table["n"].to_list(),
                "attack": ["" if ball is None else f"{ball[0]}, eps {ball[1]}" for ball in entries],
            },
            index=table.index,
        )

    def _doubts(self) -> list[str]:
        said = [f"doubtful, {finding.name}: {finding.text}" for finding in self.findings]
        return said + [f"{name}: {text}" for name, all_ in self.warnings.items() for text in all_]


def evaluate(
    net: nn.Module,
    x: Any,
    y: Any = None,
    *,
    metrics: Asked = METRICS,
    eps: Eps | None = None,
    n: int | None = None,
    n_aa: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
    classes: int | Sequence[str] | None = None,
    name: str | None = None,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    quiet: bool = False,
) -> Result:
    """Attack a network that is in memory, and check whether the results can be trusted.

    First the reliability checks test the network, then each metric measures it, in eval mode and on
    the device of its weights. Afterwards, its mode and the global random generators are as before.
    Nothing is written unless ``out`` is given.

    Args:
        net: maps images [n, c, h, w] in [0, 1] to logits; **normalisation belongs inside**.
        x: images [n, c, h, w], uint8 or floats in [0, 1], with labels ``y``; or, without ``y``, a
            torch ``Dataset`` or a Hugging Face ``datasets.Dataset``.
        metrics: names (``generalist-bench list panels`` shows them), or settings such as
            ``{"kind": "pgd", "threat": {"eps": "4/255", "steps": 50}}``.
        eps: radius of all attacks that are given by name, ``"8/255"`` or a number; or one for each
            norm, ``{"linf": "8/255", "l2": 0.5}``. Default: 8/255 under l_inf, 128/255 under l_2,
            12 under l_1.
        n, n_aa: number of images, a random sample; number of images for AutoAttack. Default: all.
        seed: seed of samples and attacks.
        classes: number or names of the classes, if they follow neither from data nor from logits.
        name: name of the network in tables.
        out: a folder for the record, which ``load`` and ``generalist-bench report`` read.
        data_root: folder of published corrupted images, if there are any; default: that of
            GENERALIST_BENCH_DATA, else ``data``.
        quiet: show no progress.

    Raises:
        ConfigError: a network or a metric that cannot be used, an impossible radius.
        DataError: images outside of [0, 1], labels that do not fit the images.

    >>> import torch
    >>> import generalist_bench as gb
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
    >>> x = torch.rand(20, 3, 8, 8)
    >>> y = net(x).argmax(1)
    >>> result = gb.evaluate(net, x, y, metrics=["clean", "pgd20_linf"], eps="8/255", quiet=True)
    >>> table = result.table()
    >>> table.index.to_list(), table["n"].to_list(), table["eps"].round(4).to_list()
    (['clean', 'pgd20_linf'], [20, 20], [nan, 0.0314])
    >>> float(table.loc["clean", "value"]), bool(table.loc["pgd20_linf", "value"] < 1)
    (1.0, True)
    """
    progress = Progress(quiet)
    split, names = split_of(x, y, where="x", progress=progress)
    label = name or type(net).__name__
    device = next((weight.device for weight in net.parameters()), torch.device("cpu"))
    request = request_for(metrics, eps, n, n_aa, seed, batch_size, device, data_root, progress)
    with in_python_words(), _mode_kept(net), generators_kept():
        request.options.check_size(len(split), "x")
        known = _class_names(net, split, classes, names, device)

        def measure(folder: Path) -> Result:
            evaluate_given(
                net, split, request, folder, label=label, classes=known, where="images in memory"
            )
            return read_result(folder, None if out is None else folder)

        if out is not None:
            return measure(Path(out))
        with tempfile.TemporaryDirectory() as folder:
            return measure(Path(folder) / label)


def request_for(
    metrics: Asked,
    eps: Eps | None,
    n: int | None,
    n_aa: int | None,
    seed: int,
    batch_size: int,
    device: torch.device,
    data_root: str | Path | None,
    progress: Progress,
    dataset: str = "",
) -> EvaluationRequest:
    """What to measure, in the form that commands use. Raises ConfigError: see ``metrics_at``."""
    if isinstance(metrics, str):
        raise ConfigError(f"metrics is a list of names: write [{metrics!r}]")
    return EvaluationRequest(
        data_root=data_folder(data_root),
        device=pick_device(str(device)),
        progress=progress,
        metrics=metrics_at(metrics, eps, dataset, data_folder(data_root)),
        options=Options(n=n, n_aa=n_aa, seed=seed),
        batch_size=batch_size,
    )


def read_result(folder: Path, shown: Path | None) -> Result:
    """The record in ``folder``."""
    record = read_evaluation(folder)
    figures = read_figures(folder)
    found = record["reliability"]["findings"]
    return Result(
        outcomes=read_outcomes(RunFiles(folder).outcomes, record["metrics"]),
        findings=tuple(dict.fromkeys(Finding(one["name"], one["text"]) for one in found)),
        warnings={
            name: tuple(figure["warnings"])
            for name, figure in figures.items()
            if figure["warnings"]
        },
        record=record,
        folder=shown,
        _figures=figures,
    )


def _class_names(
    net: nn.Module,
    split: Split,
    classes: int | Sequence[str] | None,
    names: tuple[str, ...],
    device: torch.device,
) -> tuple[str, ...]:
    """Names of classes, as many as the network has logits."""
    if isinstance(classes, int):
        return tuple(map(str, range(classes)))
    if classes or names:
        return tuple(map(str, classes or names))
    image = split.images[:2].to(device)
    floats = (weight.dtype for weight in net.parameters() if weight.is_floating_point())
    x = (image if image.is_floating_point() else image / 255).to(next(floats, torch.float32))
    with crafting(net), torch.no_grad():
        try:
            logits: Any = net(x)
        except Exception as error:  # foreign code may raise anything
            raise ConfigError(
                f"the network fails on images of shape {list(image.shape)}: {error}"
            ) from error
    if not isinstance(logits, torch.Tensor) or logits.ndim < 2:
        raise ConfigError("the network returns no tensor of logits [n, k]; give classes=k")
    return tuple(map(str, range(logits.shape[1])))


@contextmanager
def _mode_kept(net: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in net.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
