"""The variants of Generalist in the papers, as default values."""

from __future__ import annotations

from pydantic import Field

from benchmark.core.learner import LearnerConfig, default_learners
from benchmark.core.schedule import Schedule
from benchmark.core.search import Knob
from generalist.framework import Generalist


def late_stage_decay(start: float, end: float, since: float = 2 / 3) -> Schedule:
    """``start`` until ``since``, then linearly to ``end``: the best form of ratio in 2510.13361.

    The released code decays from epoch 80 of 120, hence two thirds.
    """
    return Schedule(points=((0.0, start), (since, start), (1.0, end)))


def _falling_to(ratio: float, *robust: str) -> dict[str, Schedule]:
    """Ratios of the robust learners, which start at equal parts and end at ``ratio`` each."""
    return {name: late_stage_decay(1 / len(robust), ratio) for name in robust}


NATURAL = {"name": "natural", "objective": "natural"}
LINF = {"name": "linf", "objective": {"name": "pgd-at", "threat": "linf"}}
L2 = {"name": "l2", "objective": {"name": "pgd-at", "threat": "l2"}}


L1 = {"name": "l1", "objective": {"name": "pgd-at", "threat": "l1"}}
MIXUP = {"name": "mixup", "objective": "mixup"}
CUTMIX = {"name": "cutmix", "objective": "cutmix"}
NOISE = {"name": "noise", "objective": "gaussian-noise"}
ROTATION = {"name": "rotation", "objective": "rotation"}
TRADES = {"name": "trades", "objective": "trades"}
MART = {"name": "mart", "objective": "mart"}


class GeneralistD(Generalist):
    """Generalist-D: a natural and an l_inf learner; the natural/robust trade-off (2303.13813).

    gamma_linf is 1 until two thirds of training, then falls linearly to 0.4; gamma_natural is the
    rest. t' = 75 and c = 5 of 120 epochs, as shares of training. See ``Generalist`` for the
    equations.
    """

    search = (
        Knob("last_ratio", 0.1, 1.0, setting="mixing", form=lambda r: _falling_to(r, "linf")),
    )

    learners: tuple[LearnerConfig, ...] = default_learners(NATURAL, LINF)
    mixing: dict[str, Schedule] = Field(
        default_factory=lambda: {"linf": late_stage_decay(1.0, 0.4)}
    )


class GeneralistDAdam(GeneralistD):
    """Generalist-D with Adam for the natural learner, SGD for the robust one (2510.13361).

    The paper reports that a separate optimiser for each learner helps: Adam for natural, SGD for
    adversarial training. Everything else is as in ``generalist-d``.

    Departure: we do not know the settings of the paper's Adam; here they are torch's defaults (lr
    0.001, no weight decay). The lr follows the suite's schedule.
    """

    learners: tuple[LearnerConfig, ...] = default_learners(
        {**NATURAL, "optimizer": {"name": "adam", "lr": 0.001, "weight_decay": 0}}, LINF
    )


class GeneralistDNorms(Generalist):
    """Generalist-D across norms: an l_inf and an l_2 learner (2510.13361).

    It addresses the trade-off between norms. Both ratios are 0.5 throughout training; we do not
    know the paper's schedule for this variant.
    """

    learners: tuple[LearnerConfig, ...] = default_learners(LINF, L2)


class GeneralistT(Generalist):
    """Generalist-T: natural, l_inf and l_2 learners (2510.13361).

    The two robust ratios are 0.5 each until two thirds of training, then fall linearly to 0.3; the
    natural one takes the rest (0.4). This is a late-stage decay; we do not know the paper's
    breakpoints.
    """

    search = (
        Knob(
            "last_ratio", 0.05, 0.5, setting="mixing", form=lambda r: _falling_to(r, "linf", "l2")
        ),
    )

    learners: tuple[LearnerConfig, ...] = default_learners(NATURAL, LINF, L2)
    mixing: dict[str, Schedule] = Field(
        default_factory=lambda: {
            "linf": late_stage_decay(0.5, 0.3),
            "l2": late_stage_decay(0.5, 0.3),
        }
    )


class Generalist4(Generalist):
    """Generalist with 4 learners: natural, l_inf, l_2 and l_1 (our extension: open question 3).

    2510.13361 leaves more than three learners as an open question. Equal mixing ratios; see
    ``Generalist``.
    """

    learners: tuple[LearnerConfig, ...] = default_learners(NATURAL, LINF, L2, L1)


class Generalist5(Generalist):
    """Generalist with 5 learners: natural, l_inf, l_2, l_1 and mixup (our extension).

    Equal mixing ratios; see ``Generalist`` (2510.13361, open question 3).
    """

    learners: tuple[LearnerConfig, ...] = default_learners(NATURAL, LINF, L2, L1, MIXUP)


class Generalist7(Generalist):
    """Generalist with 7 learners: natural, three norms, mixup, noise, rotation (our extension).

    Equal mixing ratios; see ``Generalist`` (2510.13361, open question 3).
    """

    learners: tuple[LearnerConfig, ...] = default_learners(
        NATURAL, LINF, L2, L1, MIXUP, NOISE, ROTATION
    )


class Generalist10(Generalist):
    """Generalist with 10 learners: the 7, cutmix, TRADES and MART (our extension).

    Equal mixing ratios; see ``Generalist`` (2510.13361, open question 3).
    """

    learners: tuple[LearnerConfig, ...] = default_learners(
        NATURAL, LINF, L2, L1, MIXUP, NOISE, ROTATION, CUTMIX, TRADES, MART
    )
