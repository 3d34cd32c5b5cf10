"""Panels: evaluations by name, at the radii of the training threat models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import Field

from benchmark.attacks.autoattack import Attack
from benchmark.core.config import Config, parse
from benchmark.core.errors import ConfigError
from benchmark.core.registry import Registry, did_you_mean
from benchmark.core.threat import NormName, Pixels, ThreatModel, exact
from benchmark.suites.metrics import (
    AutoAttackMetric,
    AutoAttackPart,
    CleanMetric,
    CorruptionsMetric,
    Metric,
    PGDMetric,
    SpatialMetric,
    UnionMetric,
)

# Steps of the standard PGD-20, as shares of eps: 2/255 for 8/255, 15/255 for about 128/255, and
# for l_1 as far again as ten of E-AT's training steps (2105.12508).
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
class Amount:
    """Test images for the metrics (None for all), and for costly ones (None for as many)."""

    n: int | None = None
    n_aa: int | None = None

    @property
    def costly(self) -> int | None:
        return self.n_aa or self.n


Panel = Callable[[Radii, Amount], tuple[Metric, ...]]


def _pgd(
    norm: NormName,
    radii: Radii,
    n: int | None,
    *,
    name: str = "",
    steps: int = 20,
    times: str = "1",
    **how: object,
) -> PGDMetric:
    """PGD under ``norm`` with ``times`` its radius."""
    eps = Pixels(getattr(radii, norm))
    if times != "1":
        number, slash, divisor = eps.text.partition("/")
        eps = Pixels(f"{float(exact(number) * exact(times)):.12g}{slash}{divisor}")
    step = Pixels(str(exact(eps.text) / _STEP[norm]))
    threat = ThreatModel(norm=norm, eps=eps, step=step, steps=steps)
    settings = {"name": name or f"pgd{steps}_{norm}", "n": n, "threat": threat, **how}
    return PGDMetric.model_validate(settings)


def _aa(norm: NormName, radii: Radii, n: int | None) -> AutoAttackMetric:
    return AutoAttackMetric(name=f"aa_{norm}", norm=norm, eps=Pixels(getattr(radii, norm)), n=n)


def _part(attack: Attack, radii: Radii, n: int | None) -> AutoAttackPart:
    return AutoAttackPart(name=f"{attack}_linf", attack=attack, eps=Pixels(radii.linf), n=n)


def _released(n: int | None) -> tuple[PGDMetric, ...]:
    """The "PGD-20" of the released Generalist code (PKU-ML/Generalist at f0dc153): whatever steps
    are asked for, it makes 10 of 0.007 at eps 0.031. The published robust accuracies are of it."""
    threat = ThreatModel(norm="linf", eps=Pixels("0.031"), step=Pixels("0.007"), steps=10)
    return (PGDMetric(name="pgd10_released", threat=threat, n=n),)


def _standard(radii: Radii, amount: Amount) -> tuple[Metric, ...]:
    """Clean, PGD-20 l_inf and l_2, AutoAttack, corruptions."""
    n = amount.n
    return (
        CleanMetric(n=n),
        _pgd("linf", radii, n),
        _pgd("l2", radii, n),
        _aa("linf", radii, amount.costly),
        CorruptionsMetric(n=n),
    )


def _quick(radii: Radii, amount: Amount) -> tuple[Metric, ...]:
    """Clean, PGD-20 l_inf, AutoAttack on 32 images unless said."""
    return (
        CleanMetric(n=amount.n),
        _pgd("linf", radii, amount.n),
        _aa("linf", radii, amount.n_aa or 32),
    )


def _paper(radii: Radii, amount: Amount) -> tuple[Metric, ...]:
    """The columns of papers on l_inf training: PGD-20, PGD-100, MIM and CW (20 steps each), every
    attack of AutoAttack on its own, and AutoAttack; at 8/255 also what the released Generalist code
    calls PGD-20."""
    n, n_aa = amount.n, amount.costly
    released = _released(n) if exact(radii.linf) == exact("8/255") else ()
    parts: tuple[Attack, ...] = ("apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square")
    return (
        CleanMetric(n=n),
        _pgd("linf", radii, n),
        _pgd("linf", radii, n, steps=100),
        _pgd("linf", radii, n, name="mim20_linf", momentum=_MIM),
        _pgd("linf", radii, n, name="cw20_linf", loss="cw"),
        *released,
        *(_part(attack, radii, n_aa) for attack in parts),
        _aa("linf", radii, n_aa),
    )


def _cross_norm(radii: Radii, amount: Amount) -> tuple[Metric, ...]:
    """AutoAttack under l_inf, l_2 and l_1, and the union of the three."""
    attacks = tuple(_aa(norm, radii, amount.costly) for norm in ("linf", "l2", "l1"))
    union = UnionMetric(name="union_norms", of=tuple(attack.name for attack in attacks))
    return (CleanMetric(n=amount.n), *attacks, union)


def _unseen(radii: Radii, amount: Amount) -> tuple[Metric, ...]:
    """What l_inf training has not seen: l_2, l_1, 1.5 and 2 times its eps, rotations with
    translations (775 passes an image, so on as many images as AutoAttack), and the union of all."""
    n = amount.n
    attacks = (
        _pgd("l2", radii, n),
        _pgd("l1", radii, n),
        _pgd("linf", radii, n, name="pgd20_linf_x1.5", times="1.5"),
        _pgd("linf", radii, n, name="pgd20_linf_x2", times="2"),
        SpatialMetric(n=amount.costly),
    )
    union = UnionMetric(name="union_unseen", of=tuple(attack.name for attack in attacks))
    return (CleanMetric(n=n), _pgd("linf", radii, n), *attacks, union)


def _ood(radii: Radii, amount: Amount) -> tuple[Metric, ...]:
    """15 corruptions x 5 severities; ``evaluate --panel`` adds the shifted test sets that are
    there."""
    return (CleanMetric(n=amount.n), CorruptionsMetric(n=amount.n))


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
    return _standard(Radii(), Amount(n_aa=1000))


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
    metrics = build(radii, Amount(wanted.n, wanted.n_aa))
    names = [metric.name for metric in metrics]
    for name in wanted.without:
        if name not in names:
            raise ValueError(f"panel {wanted.panel} has no {name!r}; {did_you_mean(name, names)}")
    return [metric for metric in metrics if metric.name not in wanted.without]
