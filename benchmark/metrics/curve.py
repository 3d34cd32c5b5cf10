"""Accuracy against the radius of the attack, from a few attacks per image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from benchmark.core.threat import NormName, Pixels, ThreatModel
from benchmark.metrics.metric import Context, Measured, Metric, norm_in_title, sentence
from benchmark.metrics.outcomes import clean_outcomes, pgd_outcomes

_WORDS = {
    "norm": "{}",
    "radii": "PGD at eps {}",
    "steps": "{} steps",
    "seed": "seed {}",
    "bn_mode": "BatchNorm in {} mode",
}


class Curve(Metric):
    """Accuracy under PGD at several radii, and the area below that curve.

    For each image, the smallest radius at which PGD fools the network is found by bisection: an
    image that is right when clean is attacked at the middle radius, then at a smaller one if the
    attack succeeded and at a larger one if not, and so on: 3 attacks for 7 radii. From this
    smallest radius on, the image counts as fooled, because an adversarial example of a small ball
    is in every larger ball. So the curve cannot rise, and at the middle radius it equals the figure
    of the metric ``pgd`` with the same threat and seed, image by image.

    Departure from an attack at every radius: an image that resists at one radius is assumed to
    resist at all smaller ones.

    The figure is the area below the curve from eps 0 (clean accuracy) to the largest radius, by
    trapezoids, divided by that radius: the mean accuracy over all radii up to it.

    Attributes:
        threat: at the middle radius; the step size grows with the radius.
        factors: the radii as multiples of the threat's, ascending; 3, 7 or 15 with a 1 in the
            middle.
    """

    kind: Literal["curve"] = "curve"
    threat: ThreatModel
    factors: tuple[Annotated[float, Field(gt=0, le=16)], ...] = (0.25, 0.5, 0.75, 1, 1.25, 1.5, 2)

    per_image = False
    count_option = "--n-pgd"

    @field_validator("factors")
    @classmethod
    def _check_factors(cls, factors: tuple[float, ...]) -> tuple[float, ...]:
        if len(factors) not in (3, 7, 15):
            raise ValueError(f"give 3, 7 or 15 factors, not {len(factors)}")
        if list(factors) != sorted(set(factors)):
            raise ValueError("factors must ascend, each given once")
        if factors[len(factors) // 2] != 1:
            raise ValueError("the factor in the middle must be 1, the radius of the threat")
        return factors

    @property
    def base_name(self) -> str:
        """Such as curve20_linf: the number of steps and the norm."""
        return f"curve{self.threat.steps}_{self.threat.norm}"

    @property
    def base_title(self) -> str:
        """Such as Area PGD-20; the norm is said unless it is l_inf."""
        return f"Area PGD-{self.threat.steps}{norm_in_title(self.threat.norm)}"

    @property
    def ball(self) -> tuple[NormName, Pixels]:
        """Norm and middle radius."""
        return self.threat.norm, self.threat.eps

    @property
    def threats(self) -> tuple[ThreatModel, ...]:
        """The attack at each radius, ascending; the one in the middle as it is given."""
        middle = len(self.factors) // 2
        return tuple(
            self.threat if i == middle else _scaled(self.threat, factor)
            for i, factor in enumerate(self.factors)
        )

    def measure(self, context: Context) -> Measured:
        """See ``Metric.measure``. Outcomes are columns ``NAME/EPS``, one per radius."""
        setup, indices = context.setup, self.indices(context.setup)
        model, data, threats = context.model, setup.data.test, self.threats
        common: dict[str, Any] = {"batch_size": setup.batch_size, "device": setup.device}
        right = clean_outcomes(model, data, indices, **common)
        # For each image: how many of the radii are known to leave it right, and from which one on
        # it is known to be fooled. Images that are wrong when clean are fooled at every radius.
        resists = torch.zeros(len(indices), dtype=torch.int64)
        fooled = torch.where(right, len(threats), 0)
        rounds = (len(threats) + 1).bit_length() - 1
        with setup.progress.task(context.label(self), rounds * len(indices)) as task:
            for _ in range(rounds):
                middle = (resists + fooled) // 2
                for k in middle[resists < fooled].unique().tolist():
                    rows = ((middle == k) & (resists < fooled)).nonzero().squeeze(1)
                    # The first attack is on all images, so that its draws are those of ``pgd``.
                    on = torch.arange(len(indices)) if k == len(threats) // 2 else rows
                    robust = pgd_outcomes(
                        model,
                        data,
                        indices[on],
                        threats[k],
                        seed=self.seed,
                        advance=task.advance,
                        **common,
                    )
                    robust = robust if on is rows else robust[rows]
                    resists[rows[robust]] = k + 1
                    fooled[rows[~robust]] = k
        columns = {str(threat.eps): resists > k for k, threat in enumerate(threats)}
        accuracies = [float(column.double().mean()) for column in columns.values()]
        eps = [0.0, *(float(threat.eps) for threat in threats)]
        clean = float(right.double().mean())
        heights = torch.tensor([clean, *accuracies], dtype=torch.float64)
        area = float(torch.trapezoid(heights, torch.tensor(eps, dtype=torch.float64))) / eps[-1]
        detail = {
            "threat": self.threat.model_dump(mode="json"),
            "radii": list(columns),
            "clean": clean,
            "accuracies": accuracies,
        }
        outcomes: dict[str, Tensor] = {f"{self.name}/{e}": c for e, c in columns.items()}
        return Measured(indices, area, outcomes, detail)

    def passes(self, images: int) -> float:
        """One attack per image and round of the bisection: three of ``pgd`` for seven radii."""
        rounds = (len(self.factors) + 1).bit_length() - 1
        return self.count(images) * rounds * self.threat.steps

    def describe(self, detail: Mapping[str, Any]) -> str:
        """See ``Metric.describe``."""
        said = {**detail, **self.model_dump(mode="json", exclude={"threat"})}
        said |= self.threat.model_dump(mode="json")
        return f"mean over eps from 0 to {detail['radii'][-1]}, {sentence(said, _WORDS)}"


def _scaled(threat: ThreatModel, factor: float) -> ThreatModel:
    """The threat at ``factor`` times its radius and step size; fractions stay fractions."""
    eps, step = (_times(str(value), factor) for value in (threat.eps, threat.step))
    settings = {**threat.model_dump(mode="json"), "eps": eps, "step": step}
    return ThreatModel.model_validate(settings)


def _times(value: str, factor: float) -> str:
    number, slash, below = value.partition("/")
    return f"{float(number) * factor:g}{slash}{below}"
