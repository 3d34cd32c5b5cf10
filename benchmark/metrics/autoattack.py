"""Standard AutoAttack: on every image, as a screening in bf16, or estimated from a sample."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import Self

from benchmark.attacks.autoattack import Attack, AutoAttackResult
from benchmark.core.config import config_hash
from benchmark.core.files import atomic_path, save_tensors
from benchmark.metrics import budget
from benchmark.metrics.in_ball import WORDS, InBall, attack_work
from benchmark.metrics.metric import Context, Measured, Setup, norm_in_title, sentence
from benchmark.records.files import RunFiles

_STANDARD: tuple[Attack, ...] = ("apgd-ce", "apgd-t", "fab-t", "square")


class AutoAttack(InBall):
    """Standard AutoAttack (Croce & Hein, 2003.01690) through pyautoattack.

    Attributes:
        precision: bf16 crafts in reduced precision, and every success is verified twice with the
            fp32 model. This is faster on processors with bf16 units, but it is not the outcome of
            AutoAttack, so the name ends in ``_screening``.
        budget: number of images to attack among the survivors of cheap attacks: those with the
            smallest margins, and a random sample of the others, from which the accuracy is
            estimated (see ``benchmark.metrics.budget``); the name ends in ``_estimate``.
        halfwidth: as ``budget``, but attack until the half-width of the 95 % interval is at most
            this, in percentage points.

    Raises:
        ValueError: both a budget and a half-width, or an estimate of a screening or of a sample.
    """

    kind: Literal["autoattack"] = "autoattack"
    version: Literal["standard"] = "standard"
    precision: Literal["fp32", "bf16"] = "fp32"
    budget: int | None = Field(default=None, ge=1)
    halfwidth: float | None = Field(default=None, gt=0, lt=50)

    reference = True

    @model_validator(mode="after")
    def _check_estimate(self) -> Self:
        if self.budget and self.halfwidth:
            raise ValueError("give an estimate either a budget or a halfwidth")
        if self.is_estimate and self.precision != "fp32":
            raise ValueError("an estimate rests on fp32 verdicts; leave precision out")
        if self.is_estimate and self.n:
            raise ValueError("an estimate is of all images; leave n out")
        return self

    @property
    def is_estimate(self) -> bool:
        """Whether only a sample of the images is attacked."""
        return bool(self.budget or self.halfwidth)

    @property
    def form(self) -> Literal["", "screening", "estimate"]:
        """See ``Metric.form``."""
        return "estimate" if self.is_estimate else "screening" if self.precision != "fp32" else ""

    @property
    def base_name(self) -> str:
        """Such as aa_linf or aa_linf_estimate."""
        return f"aa_{self.norm}" + (f"_{self.form}" if self.form else "")

    @property
    def base_title(self) -> str:
        """Such as AutoAttack l2 (estimate)."""
        form = f" ({self.form})" if self.form else ""
        return f"AutoAttack{norm_in_title(self.norm)}{form}"

    def screened(self) -> AutoAttack | None:
        """See ``Metric.screened``; None if this is a screening or an estimate itself."""
        return None if self.form else self.model_copy(update={"precision": "bf16"})

    def estimated(self, budget: int | None, halfwidth: float | None) -> AutoAttack | None:
        """See ``Metric.estimated``; None if this is a screening or an estimate itself.

        Raises:
            ValueError: both a budget and a half-width.
        """
        if self.form:
            return None
        change = {"budget": budget, "halfwidth": halfwidth, "n": None}
        return type(self).model_validate({**self.settings(), **change})

    def kept_examples(self, directory: Path, setup: Setup) -> Path | None:
        """See ``Metric.kept_examples``; an estimate looks at a sample only and keeps none."""
        wanted = setup.keep_adversarial and not self.is_estimate
        return RunFiles(directory).adversarial(self.name) if wanted else None

    def measure(self, context: Context) -> Measured:
        """See ``Metric.measure``."""
        return self._estimate(context) if self.is_estimate else self._attack(context)

    def _attack(self, context: Context) -> Measured:
        setup, indices = context.setup, self.indices(context.setup)
        if setup.ranks.first:
            of_another = RunFiles(context.directory).adversarial(self.name)
            of_another.unlink(missing_ok=True)
        journal = self.journal(context.directory)
        result = self.attacked(context, indices, journal, precision=self.precision)
        path = self.kept_examples(context.directory, setup)
        if path and setup.ranks.first:
            _keep(result, indices, path)
            setup.progress.say(
                f"{path.name}: float32 examples; image files of 8 bits would round part of them "
                "away"
            )
        return self.whole(indices, result.robust.cpu(), self.result_detail(result))

    def _estimate(self, context: Context) -> Measured:
        """An earlier sample of the same survivors is extended."""
        setup, directory = context.setup, context.directory
        base = config_hash(
            {
                "metric": self.model_dump(mode="json", exclude={"budget", "halfwidth"}),
                "model": context.model_hash,
                "data": setup.data.fingerprint,
            }
        )
        known = context.known
        earlier = known["detail"] if known and known["detail"].get("base") == base else {}
        kept = {
            key: earlier[key]
            for key in ("attacks", "targets", "versions", "late")
            if key in earlier
        }
        halfwidth = None if self.halfwidth is None else self.halfwidth / 100
        everyone = torch.arange(len(setup.data.test))
        if earlier:
            draw = budget.Draw.recorded(earlier, context.outcomes[self.name])
        else:
            label = f"{context.label(self)}, cheap attacks"
            with setup.progress.task(label, len(everyone)) as task:
                cheap = budget.cheap_attacks(
                    context.model,
                    setup.batches(everyone),
                    self.norm,
                    float(self.eps),
                    self.seed,
                    task.advance,
                )
            cheap = setup.ranks.gather(cheap)[0]
            kept["late"] = int(cheap.late.sum())
            draw = budget.begin(cheap, self.seed, budget=self.budget, halfwidth=halfwidth)

        def judge(indices: Tensor) -> Tensor:
            ordered = indices.sort().values
            part = self.journal(directory) / f"{len(ordered)}-from-{int(ordered[0])}"
            found = self.attacked(context, ordered, part)
            kept.update(attacks=found.attacks, targets=found.targets, versions=found.versions)
            return found.robust.cpu()[torch.searchsorted(ordered, indices)]

        draw, interval, kind = budget.estimate(
            len(everyone),
            draw,
            judge,
            budget=self.budget,
            halfwidth=halfwidth,
        )
        detail = {
            "norm": self.norm,
            "eps": str(self.eps),
            "version": self.version,
            "interval": kind,
            "low": interval.low,
            "high": interval.high,
            "cheap": budget.CHEAP,
            "base": base,
            **kept,
            **draw.detail(),
        }
        return Measured(everyone, interval.value, {self.name: draw.column(len(everyone))}, detail)

    def passes(self, images: int) -> float:
        """Of an image that survives every attack; of an estimate, the cheap attack's too."""
        if not self.is_estimate:
            return self.count(images) * attack_work(*_STANDARD)
        attacked = min(self.budget or images, images)
        return images * budget.CHEAP_PASSES + attacked * attack_work(*_STANDARD)

    def describe(self, detail: Mapping[str, Any]) -> str:
        """See ``Metric.describe``. How many images were attacked is each run's own: ``detail``."""
        said = {key: value for key, value in detail.items() if value != "fp32"}
        if self.budget is not None:
            said["until"] = f"{self.budget} attacked, the others estimated from them"
        if self.halfwidth is not None:
            said["until"] = f"a sample attacked until the interval is ± {self.halfwidth:g} points"
        return sentence(said, WORDS)


def _keep(result: AutoAttackResult, indices: Tensor, path: Path) -> None:
    """Write the examples: x_adv [n, c, h, w] in [0, 1], the image itself where none was found."""
    content = {
        "index": indices,
        "x_adv": result.x_adv.cpu(),
        "fooled": (result.clean & ~result.robust).cpu(),
    }
    with atomic_path(path) as temporary:
        save_tensors(content, temporary, path)
