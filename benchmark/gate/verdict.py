"""What has changed since a baseline, by how much, how certain that is, and the likely cause."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

from benchmark.core.errors import BenchmarkError
from benchmark.gate.baseline import Baseline, GateRun, ReferenceNetwork
from benchmark.records.statistics import holm, mcnemar_exact

# The probability of an alarm, over all comparisons of a check, if nothing has changed.
ALPHA = 0.001
# Margins that differ by less than this differ by rounding.
_ROUNDING = 1e-4
_RATIO_TOLERANCE = 1e-6

ComparisonKind = Literal[
    "probe-outcomes", "probe-margins", "probe-neighbours", "accuracy", "loss", "mixing", "cost"
]


@dataclass(frozen=True)
class Comparison:
    """One comparison.

    Attributes:
        subject: a method's label, or the reference network.
        before, now: accuracies in per cent, mean margins in logits, ratios, or passes.
        p: adjusted p-value (Holm); 0 for a difference that cannot be due to chance.
        identical: whether the outcomes for all images are equal.
    """

    kind: ComparisonKind
    subject: str
    metric: str
    n: int
    before: float
    now: float
    p: float
    identical: bool
    text: str

    @property
    def moved(self) -> bool:
        """Whether this is an alarm."""
        return self.p < ALPHA

    @property
    def tested(self) -> bool:
        """Whether ``p`` is that of a test; other figures are the same or they have moved."""
        return self.kind not in ("mixing", "cost", "probe-neighbours")

    @property
    def name(self) -> str:
        """``SUBJECT METRIC``, for people and test reports."""
        return f"{self.subject} {self.metric}"


@dataclass(frozen=True)
class Verdict:
    """All comparisons of a check, and the likely causes of changes.

    Attributes:
        other_settings: a sentence if the runs have other settings than the baseline's.
    """

    comparisons: tuple[Comparison, ...]
    causes: tuple[str, ...]
    other_settings: str = ""

    @property
    def passed(self) -> bool:
        """Whether the code was checked, and nothing moved."""
        return not self.moved and not self.other_settings

    @property
    def moved(self) -> list[Comparison]:
        """The alarms."""
        return [item for item in self.comparisons if item.moved]


def judge(
    baseline: Baseline,
    runs: Sequence[GateRun],
    probe: ReferenceNetwork | None,
    hashes: Mapping[tuple[str, int], str] | None = None,
) -> Verdict:
    """Compare ``runs``, which may have any seeds, and the reference network with ``baseline``.

    Args:
        hashes: hashes of the suite's present configurations, by label and seed; None: those
            of ``runs``.

    Raises:
        BenchmarkError: other settings, other images, or a run that the baseline does not have.
    """
    found = [*(_probed(baseline.probe, probe) if probe else ())]
    found += _trained(baseline, runs)
    adjusted = holm([item.p for item in found])
    found = [replace(item, p=p) for item, p in zip(found, adjusted, strict=True)]
    found += _exact(baseline, runs)
    if probe:
        found.append(_neighbours(baseline.probe, probe))
    now = hashes or {(run.label, run.seed): run.hash for run in runs}
    causes = tuple(_causes([item for item in found if item.moved]))
    return Verdict(tuple(found), causes, _other_settings(baseline, now))


def _other_settings(baseline: Baseline, now: Mapping[tuple[str, int], str]) -> str:
    """Which methods have another configuration than in the baseline, as far as the same seed tells;
    a configuration is named by its hash."""
    before = {(run.label, run.seed): run.hash for run in baseline.runs}
    labels = dict.fromkeys(
        label for (label, seed), own in now.items() if before.get((label, seed), own) != own
    )
    if not labels:
        return ""
    return (
        f"The settings of {', '.join(labels)} are not those that the baseline was recorded with: "
        f"the suite file ({baseline.scope.suite}) has changed since, or a default has. What moved "
        "may come from that. If the change is meant, record the baseline anew (record-baseline)."
    )


def _probed(before: ReferenceNetwork, now: ReferenceNetwork) -> Iterable[Comparison]:
    subject = f"reference network ({before.of})"
    for name, old in before.metrics.items():
        new = now.metrics[name]
        if old.settings != new.settings or old.n != new.n:
            raise _changed(f"the settings of {name}")
        test = mcnemar_exact(old.outcomes, new.outcomes)
        discordant = test.only_a + test.only_b
        yield Comparison(
            "probe-outcomes",
            subject,
            name,
            test.n,
            100 * float(old.outcomes.mean()),
            100 * float(new.outcomes.mean()),
            test.p,
            discordant == 0,
            f"{test.only_a} images lost and {test.only_b} won of {test.n}",
        )
    for name, margins in before.margins.items():
        one, other = np.asarray(margins), np.asarray(now.margins[name])
        if one.shape != other.shape:
            raise _changed(f"the images of {name}")
        difference = other - one
        real = np.abs(difference) > _ROUNDING
        # Wilcoxon's signed-rank test: is the attack stronger or weaker on the same images?
        p = float(stats.wilcoxon(difference[real]).pvalue) if real.sum() > 5 else 1.0
        half = 1.96 * float(difference.std(ddof=1)) / math.sqrt(len(difference))
        mean = float(difference.mean())
        yield Comparison(
            "probe-margins",
            subject,
            f"{name} margin",
            len(difference),
            float(one.mean()),
            float(other.mean()),
            p,
            not real.any(),
            f"mean change {mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}] logits",
        )


def _neighbours(before: ReferenceNetwork, now: ReferenceNetwork) -> Comparison:
    same = now.neighbours < max(10 * before.neighbours, _ROUNDING)
    return Comparison(
        "probe-neighbours",
        f"reference network ({before.of})",
        "logit change with the batch",
        1,
        before.neighbours,
        now.neighbours,
        1.0 if same else 0.0,
        same,
        "largest change of a logit when the same images stand in other batches",
    )


def _trained(baseline: Baseline, runs: Sequence[GateRun]) -> list[Comparison]:
    """Accuracies on the same images, and training losses, compared over seeds.

    The test is a two-sample t test of the seeds' figures. Its standard deviation is pooled over
    methods (a method's own is used if it is larger), since a few seeds of one method say little
    about its spread.
    """
    if not runs:
        return []
    before, now = _by_label(baseline.runs), _by_label(runs)
    for label, group in now.items():
        if label not in before:
            raise BenchmarkError(f"the baseline has no run of {label!r}; record it anew")
        _check_same(before[label][0], group[0])
    found = []
    for name in baseline.runs[0].metrics:
        old = {label: _accuracies(group, name) for label, group in before.items()}
        n = baseline.runs[0].metrics[name].n
        pooled = max(_pooled(list(old.values())), 100 / n)  # at least one image
        for label, group in now.items():
            same = _identical(before[label], group, name)
            new = _accuracies(group, name)
            found.append(_of_seeds("accuracy", label, name, n, old, new, pooled, same))
    for label, group in now.items():
        for learner in group[0].losses:
            first = {label: [run.losses[learner] for run in before[label]]}
            last = [run.losses[learner] for run in group]
            spread = _pooled(list(first.values()))
            found.append(_of_seeds("loss", label, f"loss/{learner}", 1, first, last, spread, False))
    return found


def _by_label(runs: Sequence[GateRun]) -> dict[str, list[GateRun]]:
    labels = dict.fromkeys(run.label for run in runs)
    return {label: [run for run in runs if run.label == label] for label in labels}


def _pooled(groups: Sequence[Sequence[float]]) -> float:
    """The standard deviation between seeds, from all groups.

    Raises:
        BenchmarkError: no group has two seeds.
    """
    freedom = sum(len(values) - 1 for values in groups)
    if freedom < 1:
        raise BenchmarkError(
            "the baseline has one seed per method, so the spread over seeds is unknown; record it "
            "anew (see record-baseline) with several seeds"
        )
    squares = sum(float(np.var(values)) * len(values) for values in groups)
    return math.sqrt(squares / freedom)


def _of_seeds(
    kind: Literal["accuracy", "loss"],
    label: str,
    metric: str,
    n: int,
    old: Mapping[str, Sequence[float]],
    new: Sequence[float],
    pooled: float,
    identical: bool,
) -> Comparison:
    own = old[label]
    freedom = sum(len(values) - 1 for values in old.values())
    spread = max(float(np.std(own, ddof=1)) if len(own) > 1 else 0.0, pooled, 1e-9)
    difference = float(np.mean(new) - np.mean(own))
    error = spread * math.sqrt(1 / len(own) + 1 / len(new))
    unit = " points" if kind == "accuracy" else ""
    same = "as in the baseline's run of the same seed on every image; " if identical else ""
    return Comparison(
        kind,
        label,
        metric,
        n,
        float(np.mean(own)),
        float(np.mean(new)),
        2 * float(stats.t.sf(abs(difference) / error, freedom)),
        identical,
        f"{same}{difference:+.3g}{unit}, {len(new)} run(s) against {len(own)}; spread between "
        f"seeds {spread:.2g}",
    )


def _accuracies(runs: Sequence[GateRun], metric: str) -> list[float]:
    return [100 * float(run.metrics[metric].outcomes.mean()) for run in runs]


def _identical(old: Sequence[GateRun], new: Sequence[GateRun], metric: str) -> bool:
    """Whether every new run is, image by image, the baseline's run of its seed."""
    before = {run.seed: run.metrics[metric].bits for run in old}
    return all(before.get(run.seed) == run.metrics[metric].bits for run in new)


def _check_same(old: GateRun, new: GateRun) -> None:
    if old.data != new.data:
        raise _changed("the data set")
    for name, measured in old.metrics.items():
        other = new.metrics.get(name)
        if other is None:
            raise BenchmarkError(
                f"{new.label} was not evaluated by {name}; run the suite to its end"
            )
        if measured.settings != other.settings or measured.n != other.n:
            raise _changed(f"the settings of {name}")
    if old.losses.keys() != new.losses.keys():
        raise _changed(f"the learners of {new.label}")


def _changed(what: str) -> BenchmarkError:
    return BenchmarkError(
        f"{what} changed since the baseline was recorded, so a comparison is not possible; if this "
        "is intended, record it anew: generalist-bench record-baseline FILE --reason WHY"
    )


def _exact(baseline: Baseline, runs: Sequence[GateRun]) -> list[Comparison]:
    """Comparisons of what does not depend on the seed: mixing ratios and cost."""
    found = []
    first = {run.label: run for run in reversed(baseline.runs)}
    for run in {run.label: run for run in runs}.values():
        old = first[run.label]
        for learner in old.ratios.keys() | run.ratios.keys():
            one, other = old.ratios.get(learner, ()), run.ratios.get(learner, ())
            same = len(one) == len(other) and np.allclose(one, other, atol=_RATIO_TOLERANCE)
            found.append(
                Comparison(
                    "mixing",
                    run.label,
                    f"mixing ratio of {learner}",
                    len(one),
                    one[-1] if one else math.nan,
                    other[-1] if other else math.nan,
                    1.0 if same else 0.0,
                    same,
                    "the same at every line of the log" if same else "other ratios in the log",
                )
            )
        same = old.passes == run.passes
        found.append(
            Comparison(
                "cost",
                run.label,
                "gradient passes per image",
                1,
                old.passes,
                run.passes,
                1.0 if same else 0.0,
                same,
                "declared cost of a training step",
            )
        )
    return found


def _causes(moved: Sequence[Comparison]) -> Iterable[str]:
    """Likely causes, from the pattern of changes; these are hints, not findings."""
    weaker = [m for m in moved if m.kind == "probe-margins" and m.now < m.before]
    stronger = [m for m in moved if m.kind == "probe-margins" and m.now > m.before]
    clean = [m for m in moved if m.kind == "probe-outcomes" and m.metric == "clean"]
    if any(m.kind == "probe-neighbours" for m in moved):
        yield (
            "the same image has other logits in another batch: BatchNorm in train mode when "
            "attacking"
        )
        return
    if clean:
        yield (
            "the reference network classifies clean images otherwise, with the same weights: "
            "normalisation, or the data"
        )
    elif weaker:
        yield (
            f"{_names(weaker)}: the attack reaches less on the same network: fewer or smaller "
            "steps, another random start, or another loss"
        )
    if stronger and not clean:
        yield (
            f"{_names(stronger)}: the attack reaches more on the same network: more steps, or a "
            "larger eps"
        )
    if any(m.kind == "mixing" for m in moved):
        yield "the mixing ratios of base learners changed: schedule, order of learners, or reversed"
    if any(m.kind == "cost" for m in moved):
        yield "a method declares another cost: steps of its training attack, or its loss"
    if clean or weaker or stronger:
        return
    accuracy = [m for m in moved if m.kind in ("accuracy", "loss")]
    for label in dict.fromkeys(m.subject for m in accuracy):
        yield _training_cause(label, [m for m in accuracy if m.subject == label])


def _training_cause(label: str, moved: Sequence[Comparison]) -> str:
    clean = [m.now - m.before for m in moved if m.metric == "clean"]
    robust = [m.now - m.before for m in moved if m.metric != "clean" and m.kind == "accuracy"]
    loss = [m.now - m.before for m in moved if m.kind == "loss"]
    if loss and max(loss) < 0 and not (robust and min(robust) > 0):
        return (
            f"{label} is trained on a smaller loss: a term of it weighs less (KL reduction mean "
            "for batchmean, beta), or its training attack is weaker"
        )
    if robust and max(robust) < 0 and (not clean or clean[0] > 0):
        return (
            f"{label} is trained less robust, and evaluation is unchanged: its robust term weighs "
            "less (KL reduction mean for batchmean, beta), its training attack is weaker, or its "
            "mixture leans to the natural learner (mixing ratio reversed)"
        )
    if robust and min(robust) > 0:
        return (
            f"{label} is trained more robust: its robust term weighs more, or its mixture leans to "
            "the robust learner (mixing ratio)"
        )
    return (
        f"{label} is trained otherwise, and evaluation is unchanged: optimiser, schedule, data or "
        "loss"
    )


def _names(moved: Sequence[Comparison]) -> str:
    return ", ".join(item.metric for item in moved)
