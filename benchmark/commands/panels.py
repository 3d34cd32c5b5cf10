"""Which metrics to measure: those of a run's suite, or of a panel at given radii."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmark.config.panels import PANELS, ImageCounts, Radii
from benchmark.core.config import parse_yaml
from benchmark.core.errors import BenchmarkError, ConfigError
from benchmark.core.registry import did_you_mean
from benchmark.core.threat import NormName, Pixels, check_eps
from benchmark.data.shifted import SHIFTED, find_shifted
from benchmark.data.source import DATASETS
from benchmark.metrics.metric import Metric, check_panel, make_metric
from benchmark.records.files import SuiteFiles
from benchmark.records.study import study_around


def suite_metrics(run: Path) -> tuple[Metric, ...] | None:
    """The metrics of the suite that ``run`` belongs to.

    Returns:
        () for a run of ``train``; None if the run is not inside its suite's folder.

    Raises:
        BenchmarkError: a damaged plan of the suite.
    """
    found = study_around(run.resolve())
    if found is None:
        return None
    out, suite = found
    try:
        return tuple(make_metric(item) for item in suite["evaluation"])
    except ValueError as error:
        raise BenchmarkError(
            f"{SuiteFiles(out).plan} is damaged ({error}); run the suite again"
        ) from error


def named_and_given(texts: Sequence[str]) -> tuple[list[str], list[Metric]]:
    """The values of ``--metric``: all names of metrics, and the metrics that are given by their
    settings.

    Raises:
        ConfigError: settings that no metric has.
    """
    names, given = [], []
    for text in texts:
        if text.lstrip().startswith("{"):
            try:
                metric = make_metric(parse_yaml(text, "--metric"))
            except ValueError as error:
                raise ConfigError(f"--metric {text}: {error}") from error
            given.append(metric)
            text = metric.name
        names.append(text)
    return names, given


def choose_metrics(
    metrics: Sequence[Metric], only: Sequence[str], given: Sequence[Metric] = ()
) -> list[Metric]:
    """The ``metrics`` and those ``given`` that are named in ``only``, with what they are computed
    from; all if ``only`` is empty.

    Raises:
        ConfigError: an unknown name, or a metric given under the name of another.
    """
    metrics = [*metrics, *(metric for metric in given if metric not in metrics)]
    try:
        check_panel(metrics)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    names = [metric.name for metric in metrics]
    for name in only:
        if name not in names:
            raise _unknown(name, metrics)
    wanted = set(only)
    for metric in reversed(metrics):  # parts stand before what is computed from them
        if metric.name in wanted:
            wanted |= set(metric.parts)
    return [metric for metric in metrics if not only or metric.name in wanted]


def _unknown(name: str, metrics: Collection[Metric]) -> ConfigError:
    """What to say of a name that no metric has: which ones are of that kind (``aa_linf`` for
    ``autoattack``), or have similar names."""
    of_kind = [m.name for m in metrics if name.casefold() in (m.kind, m.title.casefold())]
    advice = f"did you mean {' or '.join(map(repr, of_kind))}?" if of_kind else ""
    advice = advice or did_you_mean(name, [m.name for m in metrics])
    return ConfigError(f"unknown metric {name!r}; {advice}")


def usual_radii(dataset: str) -> Radii:
    """The radii of the papers on the data set ("" for one without a name), used where nothing else
    sets them."""
    return Radii(**DATASETS.get(dataset).radii) if dataset else Radii()


def radii_of(metrics: Sequence[Metric]) -> Radii:
    """The radii of a suite's attacks, and the default radii for norms that it does not use.

    Raises:
        ConfigError: several radii under one norm.
    """
    found: dict[NormName, set[str]] = {}
    for metric in metrics:
        if metric.role == "attack" and metric.ball and not metric.tag:
            norm, eps = metric.ball
            found.setdefault(norm, set()).add(str(eps))
    for norm, texts in found.items():
        if len({Pixels(text) for text in texts}) > 1:
            raise ConfigError(
                f"the suite attacks with several {norm} radii ({', '.join(sorted(texts))}), so a "
                "panel has none to follow; put {panel: NAME} into the suite's own evaluation"
            )
    return Radii(**{norm: min(texts) for norm, texts in found.items()})


def panel_at(name: str, radii: Sequence[Radii], dataset: str, data_root: Path) -> list[Metric]:
    """The metrics of the panel ``name`` at each of ``radii``.

    With several radii, metrics under l_inf carry theirs in the name (``aa_linf@1/255``); a metric
    that does not depend on it appears once. The panel ``ood`` also gets every shifted test set of
    ``dataset`` that is found below ``data_root``.

    Raises:
        ConfigError: a radius that an attack of the panel cannot have.
    """
    panel: dict[str, Metric] = {}
    for each in radii:
        metrics = _panel(name, each, dataset, data_root)
        for metric in _tagged(metrics, each.linf) if len(radii) > 1 else metrics:
            panel.setdefault(metric.name, metric)
    return list(panel.values())


def find_panel(
    names: Sequence[str], radii: Sequence[Radii], dataset: str, data_root: Path
) -> list[Metric]:
    """The named metrics, from all panels. ``standard`` is searched first; if several panels have a
    metric of that name, it is that of the first.

    Raises:
        ConfigError: a name that no panel has.
    """
    found: dict[str, Metric] = {}
    for name in dict.fromkeys(["standard", *PANELS.names()]):
        if set(names) <= found.keys():
            break
        for metric in panel_at(name, radii, dataset, data_root):
            found.setdefault(metric.name, metric)
    wrong = next((name for name in names if name not in found), None)
    if wrong is not None:
        raise _unknown(wrong, found.values())
    return list(found.values())


Eps = str | float | Mapping[NormName, str | float]


def metrics_at(
    asked: Sequence[str | Mapping[str, Any] | Metric],
    eps: Eps | None,
    dataset: str,
    data_root: Path,
) -> list[Metric]:
    """Metrics by name, at the given radius; or by their settings, which say everything.

    Args:
        asked: names of metrics of panels (the parts of a union come with it), mappings such as
            ``{"kind": "clean"}``, or metrics.
        eps: one radius for all named attacks, or one by norm; None for the usual ones.

    Raises:
        ConfigError: an unknown name, wrong settings, or a radius in the wrong unit.
    """
    names = [item for item in asked if isinstance(item, str)]

    def named(radii: Radii) -> list[Metric]:
        return choose_metrics(find_panel(names, [radii], dataset, data_root), names)

    chosen = named(usual_radii(dataset)) if names else []
    if eps is not None:
        given = (
            dict(eps) if isinstance(eps, Mapping) else {m.ball[0]: eps for m in chosen if m.ball}
        )
        chosen = named(_radii_over(usual_radii(dataset), given)) if names else []
    try:
        own = [make_metric(item) for item in asked if not isinstance(item, str)]
        check_panel([*chosen, *own])
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return [*chosen, *own]


def _radii_over(usual: Radii, given: Mapping[Any, Any]) -> Radii:
    """``usual`` with the radii that were ``given``, by norm.

    Raises:
        ConfigError: an unknown norm, or a radius that is none.
    """
    texts = asdict(usual)
    for norm, eps in given.items():
        if norm not in texts:
            raise ConfigError(f"eps: unknown norm {norm!r}; {did_you_mean(str(norm), texts)}")
        try:
            pixels = Pixels(eps)
            check_eps(pixels, norm)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        texts[norm] = pixels.text
    return Radii(**texts)


def _panel(name: str, radii: Radii, dataset: str, data_root: Path) -> list[Metric]:
    try:
        metrics = list(PANELS.get(name)(radii, ImageCounts()))
    except ValueError as error:
        raise ConfigError(f"panel {name}: {error}") from error
    if name == "ood":
        metrics += [
            make_metric({"kind": "shift", "test_set": shifted})
            for shifted, entry in SHIFTED.items()
            if entry.base == dataset and find_shifted(shifted, data_root)
        ]
    return metrics


def _tagged(metrics: Sequence[Metric], eps: str) -> list[Metric]:
    """``metrics`` with the radius as the tag of those under l_inf, and of metrics that are computed
    from them."""
    tagged: dict[str, Metric] = {}
    for metric in metrics:
        names = {name: other.name for name, other in tagged.items()}
        renamed = metric.with_parts(names)
        if (metric.ball and metric.ball[0] == "linf") or renamed != metric:
            tag = f"{metric.tag}-{eps}" if metric.tag else eps
            renamed = renamed.model_copy(update={"tag": tag})
        tagged[metric.name] = renamed
    return list(tagged.values())
