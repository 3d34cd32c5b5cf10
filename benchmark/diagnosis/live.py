"""Signatures that are found during training: from the lines of the log, without further cost."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.diagnosis.signature import ERRORS, Line, RunHistory, Signature, Unjudged, percent


class CatastrophicOverfitting(Signature):
    """PGD accuracy collapses while accuracy under a single step does not (2001.03994, 2007.02617).

    In single-step training, the network can learn to make the single gradient step useless; an
    attack with more steps then still succeeds. Found if PGD accuracy was above chance, has lost
    more than half of its best value, and single-step accuracy has not fallen since. In robust
    overfitting both fall. A network that was never robust (natural training) cannot lose
    robustness.
    """

    name = "catastrophic overfitting"
    remedy = (
        "train against an attack of several steps (pgd-at), or keep one step and add noise without "
        "projection (n-fgsm); a smaller eps or step size helps too"
    )

    _LEFT = 0.5

    def judge(self, run: RunHistory) -> str | None:
        """See ``Signature``."""
        points = run.validations
        if any("val_fgsm" not in line for line in points):
            raise Unjudged("single-step accuracy was not recorded")
        best, now = _best(points), points[-1]
        lost = best["val_pgd"] - now["val_pgd"]
        if (
            not run.above_chance(best["val_pgd"])
            or now["val_pgd"] >= self._LEFT * best["val_pgd"]
            or lost <= ERRORS * run.error(best["val_pgd"], now["val_pgd"])
            or now["val_fgsm"] < best["val_fgsm"]
        ):
            return None
        return (
            f"validation PGD accuracy fell from {percent(best['val_pgd'])} at epoch "
            f"{best['epoch']:.4g} to {percent(now['val_pgd'])} at epoch {now['epoch']:.4g}, while "
            f"accuracy under a single step went from {percent(best['val_fgsm'])} to "
            f"{percent(now['val_fgsm'])}"
        )


class RobustOverfitting(Signature):
    """Robust accuracy on new images has been falling since the best checkpoint (2002.11569).

    Found if all of this holds. The best validation PGD accuracy is above chance, and is above the
    present one by more than noise explains. Clean accuracy has not fallen too (when training
    breaks down, both fall). The training images have been used at least five times since:
    overfitting needs repetition, and a faster loss of robustness has other causes (a mixture whose
    ratios change). Not found where catastrophic overfitting is, which is then the cause.
    """

    name = "robust overfitting"
    remedy = (
        "deploy the best checkpoint (train.selection: [best]), train for fewer epochs, or "
        "regularise: trades, awp, an average of the weights (ema, swa), more or generated data"
    )

    _EPOCHS = 5

    def judge(self, run: RunHistory) -> str | None:
        """See ``Signature``."""
        points = run.validations
        best, now = _best(points), points[-1]
        lost = best["val_pgd"] - now["val_pgd"]
        broken = best["val_clean"] - now["val_clean"]
        if (
            now["epoch"] - best["epoch"] < self._EPOCHS
            or lost <= ERRORS * run.error(best["val_pgd"], now["val_pgd"])
            or broken > ERRORS * run.error(best["val_clean"], now["val_clean"])
            or not run.above_chance(best["val_pgd"])
            or _collapsed(run)
        ):
            return None
        return (
            f"validation PGD accuracy was {percent(best['val_pgd'])} at epoch "
            f"{best['epoch']:.4g} and is {percent(now['val_pgd'])} at epoch {now['epoch']:.4g}, "
            f"{lost / run.error(best['val_pgd'], now['val_pgd']):.1f} standard errors less"
            f"{_mixed_meanwhile(best, now)}"
        )


class NeverPart(Signature):
    """Base learners stay practically identical, so the mixture is one network, trained at the cost
    of several.

    Found if ``apart`` (see ``GeneralistMethod.diagnostics``) was below 1 % at every validation
    since the first whole cycle of redistribution. For comparison: with redistribution after every
    step, the learners of the suite ``quick`` are at most 0.4 % apart; with its own settings, 1.9 %
    (redistribution in bursts) to 6.1 %. Distances shrink with the learning rate, so the largest
    distance is judged.
    """

    name = "learners that never part"
    remedy = (
        "redistribute less often (raise `every`), train longer, or raise the learning rate of the "
        "learners; if they solve the same task, one of them suffices"
    )

    _APART = 0.01

    def judge(self, run: RunHistory) -> str | None:
        """See ``Signature``."""
        values = [line["apart"] for line in run.validations if "apart" in line]
        if len(values) < 2:
            raise Unjudged("the distance of base learners was recorded at fewer than 2 validations")
        if max(values) >= self._APART:
            return None
        return (
            f"at {len(values)} validations since the first redistribution, base learners were at "
            f"most {100 * max(values):.2g} % of the norm of the weights apart (under "
            f"{100 * self._APART:g} % they are practically the same network)"
        )


LIVE: tuple[Signature, ...] = (CatastrophicOverfitting(), RobustOverfitting(), NeverPart())


def _best(points: Sequence[Line]) -> Line:
    """The first validation with the largest PGD accuracy."""
    return max(points, key=lambda line: line["val_pgd"])


def _collapsed(run: RunHistory) -> bool:
    try:
        return CatastrophicOverfitting().judge(run) is not None
    except Unjudged:
        return False


def _mixed_meanwhile(best: Line, now: Line) -> str:
    """How mixing ratios changed, since that can reduce robustness too."""
    moved = [
        f"{name.removeprefix('mix/')} {best[name]:.2g} to {now[name]:.2g}"
        for name in now
        if name.startswith("mix/") and name in best and abs(now[name] - best[name]) >= 0.05
    ]
    if not moved:
        return ""
    return f" (the change of the mixing ratios may explain a part of it: {', '.join(moved)})"
