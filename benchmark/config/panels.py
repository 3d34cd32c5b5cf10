"""Panels: evaluations by name, at the radii of the training threat models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from benchmark.core.config import Config, parse
from benchmark.core.errors import ConfigError
from benchmark.core.registry import Registry, did_you_mean
from benchmark.core.threat import NormName, Pixels, exact
from benchmark.metrics.metric import Metric, make_metric

# Steps of the standard PGD-20 are eps divided by this: 2/255 for 8/255, about 15/255 for 128/255;
# under l_1, 20 steps go as far as ten of E-AT's training steps (2105.12508).
_STEP = {"linf": 4, "l2": 8, "l1": 8}
_MIM = 1.0  # momentum of 1710.06081


class PanelItem(Config):
    """A panel in a suite's list of metrics.

    Attributes:
        panel: its name.
        linf, l2, l1: eps per norm.
        n, n_aa: test images for the metrics, and for AutoAttack and its parts; None for all.
        without: names of metrics to leave out.
    """

    panel: str
    linf: Pixels = Pixels("8/255")
    l2: Pixels = Pixels("128/255")
    l1: Pixels = Pixels("12")
    n: int | None = Field(default=None, ge=1)
    n_aa: int | None = Field(default=None, ge=1)
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Radii:
    """eps per norm as users write it, in units of pixels in [0, 1]."""

    linf: str = "8/255"
    l2: str = "128/255"
    l1: str = "12"


@dataclass(frozen=True)
class ImageCounts:
    """Test images for the metrics (None for all), and for costly ones (None for as many)."""

    n: int | None = None
    n_aa: int | None = None

    @property
    def costly(self) -> int | None:
        return self.n_aa or self.n


Panel = Callable[[Radii, ImageCounts], tuple[Metric, ...]]


def _pgd(
    norm: NormName,
    radii: Radii,
    n: int | None,
    *,
    steps: int = 20,
    times: str = "1",
    **how: object,
) -> Metric:
    """PGD under ``norm`` with ``times`` its radius."""
    eps = Pixels(getattr(radii, norm))
    tag = ""
    if times != "1":
        number, slash, divisor = eps.text.partition("/")
        eps = Pixels(f"{float(exact(number) * exact(times)):.12g}{slash}{divisor}")
        tag = f"x{times}"
    step = str(exact(eps.text) / _STEP[norm])
    threat = {"norm": norm, "eps": eps.text, "step": step, "steps": steps}
    return make_metric({"kind": "pgd", "tag": tag, "n": n, "threat": threat, **how})


def _aa(norm: NormName, radii: Radii, n: int | None) -> Metric:
    return make_metric({"kind": "autoattack", "norm": norm, "eps": getattr(radii, norm), "n": n})


def _part(attack: str, radii: Radii, n: int | None) -> Metric:
    return make_metric({"kind": "autoattack-part", "attack": attack, "eps": radii.linf, "n": n})


def _clean(n: int | None) -> Metric:
    return make_metric({"kind": "clean", "n": n})


def _corruptions(n: int | None) -> Metric:
    return make_metric({"kind": "corruptions", "n": n})


def _union(tag: str, attacks: Sequence[Metric]) -> Metric:
    return make_metric({"kind": "union", "tag": tag, "of": [attack.name for attack in attacks]})


def _released(n: int | None) -> tuple[Metric, ...]:
    """The "PGD-20" of the released Generalist code (PKU-ML/Generalist at f0dc153): it always makes
    10 steps of 0.007 at eps 0.031. The published robust accuracies were measured with it."""
    threat = {"norm": "linf", "eps": "0.031", "step": "0.007", "steps": 10}
    return (make_metric({"kind": "pgd", "tag": "released", "n": n, "threat": threat}),)


def _standard(radii: Radii, amount: ImageCounts) -> tuple[Metric, ...]:
    """Measures clean accuracy, PGD-20 under l_inf and l_2, AutoAttack under l_inf, corruptions."""
    n = amount.n
    return (
        _clean(n),
        _pgd("linf", radii, n),
        _pgd("l2", radii, n),
        _aa("linf", radii, amount.costly),
        _corruptions(n),
    )


def _quick(radii: Radii, amount: ImageCounts) -> tuple[Metric, ...]:
    """Measures clean accuracy, PGD-20 and AutoAttack under l_inf; AutoAttack on 32 images, unless
    another number is given."""
    return (
        _clean(amount.n),
        _pgd("linf", radii, amount.n),
        _aa("linf", radii, amount.n_aa or 32),
    )


def _paper(radii: Radii, amount: ImageCounts) -> tuple[Metric, ...]:
    """Measures the columns of papers on l_inf training: PGD-20, PGD-100, MIM and CW (20 steps
    each), every attack of AutoAttack on its own, and AutoAttack; at 8/255 also what the released
    Generalist code calls PGD-20."""
    n, n_aa = amount.n, amount.costly
    released = _released(n) if exact(radii.linf) == exact("8/255") else ()
    parts = ("apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square")
    return (
        _clean(n),
        _pgd("linf", radii, n),
        _pgd("linf", radii, n, steps=100),
        _pgd("linf", radii, n, momentum=_MIM),
        _pgd("linf", radii, n, loss="cw"),
        *released,
        *(_part(attack, radii, n_aa) for attack in parts),
        _aa("linf", radii, n_aa),
    )


def _cross_norm(radii: Radii, amount: ImageCounts) -> tuple[Metric, ...]:
    """Measures AutoAttack under l_inf, l_2 and l_1, and the union of the three."""
    attacks = tuple(_aa(norm, radii, amount.costly) for norm in ("linf", "l2", "l1"))
    return (_clean(amount.n), *attacks, _union("norms", attacks))


def _unseen(radii: Radii, amount: ImageCounts) -> tuple[Metric, ...]:
    """Measures what l_inf training has not seen: l_2, l_1, 1.5 and 2 times its eps, rotations with
    translations (775 passes an image, so on as many images as AutoAttack), and the union of all."""
    n = amount.n
    attacks = (
        _pgd("l2", radii, n),
        _pgd("l1", radii, n),
        _pgd("linf", radii, n, times="1.5"),
        _pgd("linf", radii, n, times="2"),
        make_metric({"kind": "spatial", "n": amount.costly}),
    )
    return (_clean(n), _pgd("linf", radii, n), *attacks, _union("unseen", attacks))


def _ood(radii: Radii, amount: ImageCounts) -> tuple[Metric, ...]:
    """Measures 15 corruptions at 5 severities; ``evaluate --panel`` adds the shifted test sets
    that are there."""
    return (_clean(amount.n), _corruptions(amount.n))


PANELS: Registry[Panel] = Registry("panel")
for _name, _panel in {
    "standard": _standard,
    "quick": _quick,
    "paper": _paper,
    "cross-norm": _cross_norm,
    "unseen": _unseen,
    "ood": _ood,
}.items():
    PANELS.register(_name, _panel)


def standard_panel() -> tuple[Metric, ...]:
    """The default evaluation of a suite: ``standard``, AutoAttack on 1,000 images."""
    return _standard(Radii(), ImageCounts(n_aa=1000))


def expanded(item: object) -> list[object]:
    """The metrics that an item of a suite's ``evaluation`` stands for: itself, or a panel's.

    Raises:
        ValueError: unknown panel, or a key that it does not have.
    """
    if not isinstance(item, Mapping) or "panel" not in item:
        return [item]
    try:
        wanted = parse(PanelItem, item, where="evaluation")
        build = PANELS.get(wanted.panel)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    radii = Radii(wanted.linf.text, wanted.l2.text, wanted.l1.text)
    metrics = build(radii, ImageCounts(wanted.n, wanted.n_aa))
    names = [metric.name for metric in metrics]
    for name in wanted.without:
        if name not in names:
            raise ValueError(f"panel {wanted.panel} has no {name!r}; {did_you_mean(name, names)}")
    return [metric for metric in metrics if metric.name not in wanted.without]
