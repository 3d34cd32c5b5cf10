"""Signatures of finished runs: from curves, figures, and measurements on the networks if there are
any."""

from __future__ import annotations

import math
from itertools import pairwise

from benchmark.diagnosis.signature import (
    ERRORS,
    Attacked,
    Ball,
    Line,
    RunHistory,
    Signature,
    Unjudged,
    percent,
)
from benchmark.records.schema import Barrier, NetworkMeasurements, PairedAccuracies


class OneTask(Signature):
    """The mixture solves only the natural task: at the end, robust accuracy is at chance level.

    Judged for mixtures of a learner on clean images and learners that are trained in the norm of
    the validation attack.
    """

    name = "collapse to one task"
    remedy = (
        "give the robust learner a larger share at the end (`mixing`), start mixing later, or "
        "redistribute more often, so that the learners stay closer to each other"
    )

    def judge(self, run: RunHistory) -> str | None:
        """See ``Signature``."""
        run.check_mixes()
        norms = {ball.norm if ball else None for ball in run.tasks.values()}
        if run.validated is None or not {None, run.validated.norm} <= norms:
            raise Unjudged("it needs learners on clean images and in the norm of the validation")
        now = run.validations[-1]
        if run.above_chance(now["val_pgd"]) or not run.above_chance(now["val_clean"]):
            return None
        return (
            f"validation accuracy is {percent(now['val_clean'])} clean but "
            f"{percent(now['val_pgd'])} under PGD, no more than always answering one class "
            f"({percent(1 / run.classes)}); mixing ratios at the end: {_ratios(now)}"
        )


class Instability(Signature):
    """Losses or accuracies change abruptly.

    Found if a mean loss after the first quarter of training is more than 1.2 times its first value
    (in the recorded studies, no mean loss exceeds its first value), or if clean accuracy falls by
    more than 40 % of its value from one validation to the next, beyond noise (in the recorded
    studies, it falls by at most 30 %).
    """

    name = "instability"
    remedy = "lower the learning rate, lengthen its warm-up (`schedule`), or use `grad_clip`"

    _ABOVE, _FALL = 1.2, 0.4

    def judge(self, run: RunHistory) -> str | None:
        """See ``Signature``."""
        found = [*self._losses(run), *self._falls(run)]
        return "; ".join(found) or None

    def _losses(self, run: RunHistory) -> list[str]:
        first: dict[str, float] = {}
        worst: dict[str, Line] = {}
        for line in run.lines:
            for name in line:
                if not name.startswith("loss/"):
                    continue
                first.setdefault(name, line[name])
                late = line["progress"] >= 0.25
                if late and (name not in worst or line[name] > worst[name][name]):
                    worst[name] = line
        return [
            f"the mean {name} was {first[name]:.3g} at first and {line[name]:.3g} at epoch "
            f"{line['epoch']:.4g}"
            for name, line in worst.items()
            if line[name] > self._ABOVE * first[name] > 0
        ]

    def _falls(self, run: RunHistory) -> list[str]:
        worst: tuple[float, str] = (0.0, "")
        for before, after in pairwise(run.validations):
            high, low = before["val_clean"], after["val_clean"]
            if high - low > max(self._FALL * high, ERRORS * run.error(high, low), worst[0]):
                text = (
                    f"validation clean accuracy fell from {percent(high)} at epoch "
                    f"{before['epoch']:.4g} to {percent(low)} at epoch {after['epoch']:.4g}"
                )
                worst = high - low, text
        return [worst[1]] if worst[1] else []


class NoTransfer(Signature):
    """Robust in one of the norms in which learners are trained, but at chance level in another."""

    name = "no transfer between norms"
    remedy = (
        "give the learner of that norm a larger share (`mixing`), or train one learner on several "
        "norms (max, avg, msd, e-at)"
    )

    def judge(self, run: RunHistory) -> str | None:
        """See ``Signature``."""
        run.check_mixes()
        balls = list(dict.fromkeys(ball for ball in run.tasks.values() if ball))
        if len({ball.norm for ball in balls}) < 2:
            raise Unjudged("its learners are all trained in the same norm, or on clean images")
        figures = [_figure(run, ball) for ball in balls]
        held = [f for f in figures if run.above_chance(f.accuracy, f.images)]
        lost = [f for f in figures if f not in held]
        if not held or not lost:
            return None
        said = [f"{percent(f.accuracy)} under {f.metric}" for f in (*lost, *held)]
        return (
            f"accuracy on test images is {', '.join(said)}; always answering one class gets "
            f"{percent(1 / run.classes)}"
        )


class LossBarrier(Signature):
    """There is a loss barrier on the straight line between two base learners, on which their
    mixture lies (1912.05671).

    Found if, at the worst of three inner points of the line, the mean cross-entropy on clean images
    is above the mean of both ends by more than noise and by more than 5 % of ln(classes), which is
    the loss of guessing. BatchNorm statistics are re-estimated at every point, so that they cannot
    be the cause.
    """

    name = "loss barrier between learners"
    remedy = (
        "start the learners from the same weights (`init`), redistribute more often (`every`) or "
        "earlier (`warmup`), or lower their learning rates"
    )

    _SHARE = 0.05

    def judge(self, run: RunHistory) -> str | None:
        """See ``Signature``."""
        run.check_mixes()
        measured = run.checkpoint
        _check_parted(measured)
        if not measured.barriers:
            raise Unjudged("no weights of base learners are averaged")
        high = self._SHARE * math.log(measured.classes)
        found = [b for b in measured.barriers if b.excess > max(high, ERRORS * b.error)]
        return "; ".join(map(self._words, found)) or None

    def _words(self, barrier: Barrier) -> str:
        return (
            f"between {barrier.first} and {barrier.second}, at {barrier.share:g} of the way, the "
            f"loss is {barrier.excess:.2f} nats (standard error {barrier.error:.2f}) above that of "
            f"the ends and accuracy {percent(barrier.accuracy)}, against "
            f"{' and '.join(map(percent, barrier.ends))}"
        )


class StaleBatchNorm(Signature):
    """BatchNorm statistics do not fit the weights: re-estimating them raises an accuracy by 3
    points or more, beyond noise."""

    name = "stale BatchNorm statistics"
    remedy = "re-estimate them before deployment (`batchnorm: reestimate` in Generalist; swa does)"

    _POINTS = 0.03

    def judge(self, run: RunHistory) -> str | None:
        """See ``Signature``."""
        measured = run.checkpoint
        if not measured.reestimated:
            raise Unjudged("the network has no BatchNorm")
        found = [
            f"{kind} accuracy rises from {percent(pair.first)} to {percent(pair.second)}"
            for kind, pair in measured.reestimated.items()
            if pair.gain >= max(self._POINTS, ERRORS * pair.error)
        ]
        if not found:
            return None
        return f"with statistics re-estimated on clean training images, {' and '.join(found)}"


class NoBetterThanLearner(Signature):
    """The mixture is not better than its own most robust learner, in clean or in PGD accuracy.

    The learner is represented by its moving average if the method keeps one, else by its last
    weights, which are near their average if the learning rate is small at the end. Judged only if
    noise is at most 3 points.
    """

    name = "no better than its own robust learner"
    remedy = (
        "train only that learner, with a moving average (ema), which costs fewer passes; or let "
        "the learners differ more: a larger share of the others (`mixing`), less frequent "
        "redistribution (`every`), higher learning rates"
    )

    _NOISE = 0.03

    def judge(self, run: RunHistory) -> str | None:
        """See ``Signature``."""
        run.check_mixes()
        measured = run.checkpoint
        _check_parted(measured)
        pairs = measured.over_robust
        if any(pair.gain > ERRORS * pair.error for pair in pairs.values()):
            return None
        if any(ERRORS * pair.error > self._NOISE for pair in pairs.values()):
            raise Unjudged(f"{measured.images} validation images are too few for a judgement")
        said = [f"{kind} {_against(pair)}" for kind, pair in pairs.items()]
        return (
            f"at step {measured.learners_step}, validation accuracies of the mixture against its "
            f"learner {measured.robust}: {', '.join(said)}"
        )


FINISHED: tuple[Signature, ...] = (
    OneTask(),
    Instability(),
    NoTransfer(),
    LossBarrier(),
    StaleBatchNorm(),
    NoBetterThanLearner(),
)


def _check_parted(measured: NetworkMeasurements) -> None:
    if measured.learners_step is None:
        raise Unjudged("in the checkpoints, all base learners are the same network")


def _against(pair: PairedAccuracies) -> str:
    return f"{percent(pair.second)} against {percent(pair.first)}"


def _ratios(line: Line) -> str:
    ratios = {name: value for name, value in line.items() if name.startswith("mix/")}
    return ", ".join(f"{name.removeprefix('mix/')} {value:.2g}" for name, value in ratios.items())


def _figure(run: RunHistory, ball: Ball) -> Attacked:
    """The accuracy in a ball that was measured on the most images; of several, the lowest.

    Raises:
        Unjudged: no accuracy was measured in this ball.
    """
    figures = [figure for figure in run.attacked if figure.ball == ball]
    if not figures:
        raise Unjudged(f"no attack under {ball.norm} with eps {ball.eps:.4g} is on record")
    return min(figures, key=lambda figure: (-figure.images, figure.accuracy))
