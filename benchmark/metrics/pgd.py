"""Projected gradient descent, judged at the last iterate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from benchmark.attacks.folding import folded_if_same
from benchmark.attacks.pgd import pgd
from benchmark.core.config import explain
from benchmark.core.errors import ConfigError
from benchmark.core.threat import NormName, Pixels, ThreatModel
from benchmark.metrics.metric import Context, Measured, Metric, Numbers, norm_in_title, sentence
from benchmark.metrics.outcomes import pgd_outcomes

_WORDS = {
    "norm": "{}",
    "eps": "eps {}",
    "step": "step {}",
    "steps": "{} steps",
    "restarts": "{} restart(s)",
    "loss": "loss {}",
    "momentum": "momentum {}",
    "precision": "crafted in {}",
    "seed": "seed {}",
    "bn_mode": "BatchNorm in {} mode",
}


class PGD(Metric):
    """PGD (1706.06083), judged at the last iterate.

    An image is robust if it is right when clean and at the last iterate of every restart. With
    momentum, the attack is called MIM (1710.06081); with the margin loss, CW (the loss of
    1608.04644 under PGD, as in papers on adversarial training).

    Attributes:
        threat: norm, radius, step size and steps; pixels in [0, 1].
        loss: cross-entropy, or the margin between the best wrong class and the true one (cw).
        momentum: of the gradient, 1 for MIM; 0 is plain PGD.
        restarts: random starts, all of which an image must survive.
        precision: bf16 crafts in reduced precision and verifies in fp32. This is faster on
            processors with bf16 units, but its steps are not those of fp32, so the name ends in
            ``_screening``.
    """

    kind: Literal["pgd"] = "pgd"
    threat: ThreatModel
    loss: Literal["ce", "cw"] = "ce"
    momentum: float = Field(default=0.0, ge=0)
    restarts: int = Field(default=1, ge=1)
    precision: Literal["fp32", "bf16"] = "fp32"

    role = "attack"
    count_option = "--n-pgd"
    has_examples = True

    @property
    def _word(self) -> str:
        return "cw" if self.loss == "cw" else "mim" if self.momentum else "pgd"

    @property
    def base_name(self) -> str:
        """Such as pgd20_linf: the attack, its number of steps and its norm."""
        name = f"{self._word}{self.threat.steps}_{self.threat.norm}"
        return f"{name}_{self.form}" if self.form else name

    @property
    def base_title(self) -> str:
        """Such as PGD-20; the norm is said unless it is l_inf."""
        form = f" ({self.form})" if self.form else ""
        return f"{self._word.upper()}-{self.threat.steps}{norm_in_title(self.threat.norm)}{form}"

    @property
    def form(self) -> Literal["", "screening", "estimate"]:
        """See ``Metric.form``."""
        return "" if self.precision == "fp32" else "screening"

    @property
    def ball(self) -> tuple[NormName, Pixels]:
        """See ``Metric.ball``."""
        return self.threat.norm, self.threat.eps

    def screened(self) -> PGD | None:
        """See ``Metric.screened``; None if this is a screening itself."""
        return None if self.form else self.model_copy(update={"precision": "bf16"})

    def with_numbers(self, numbers: Numbers) -> PGD:
        """See ``Metric.with_numbers``: another step size or number of restarts gives a tag, since
        the name does not say them."""
        threat, words = self.threat.model_dump(mode="json"), [self.tag] if self.tag else []
        restarts = self.restarts
        if numbers.steps is not None:
            numbers.taken.add("--steps")
            threat["steps"] = numbers.steps
        if numbers.step is not None:
            numbers.taken.add("--step")
            if threat["step"] != numbers.step:
                threat["step"] = numbers.step
                words.append(f"step{numbers.step.replace(' ', '')}")
        if numbers.restarts is not None:
            numbers.taken.add("--restarts")
            if restarts != numbers.restarts:
                restarts = numbers.restarts
                words.append(f"r{restarts}")
        try:
            changed = ThreatModel.model_validate(threat)
        except ValidationError as error:
            raise ConfigError(f"--steps, --step: {explain(error, ThreatModel)}") from error
        update = {"threat": changed, "restarts": restarts, "tag": "-".join(words)}
        return self.model_copy(update=update)

    def measure(self, context: Context) -> Measured:
        """See ``Metric.measure``."""
        setup, indices = context.setup, self.indices(context.setup)
        with setup.progress.task(context.label(self), len(indices)) as task:
            robust = pgd_outcomes(
                context.model,
                setup.data.test,
                indices,
                self.threat,
                seed=self.seed,
                batch_size=setup.batch_size,
                device=setup.device,
                loss=self.loss,
                momentum=self.momentum,
                restarts=self.restarts,
                precision=self.precision,
                advance=task.advance,
            )
        detail = {
            "threat": self.threat.model_dump(mode="json"),
            "loss": self.loss,
            "start": "uniform",
            "momentum": self.momentum,
            "restarts": self.restarts,
            "counts": "last iterate",
            "precision": self.precision,
        }
        return self.whole(indices, robust, detail)

    def examples(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Tensor:
        """See ``Metric.examples``: the last iterate of one start."""
        return pgd(
            folded_if_same(model, x),
            x,
            y,
            self.threat,
            loss=self.loss,
            momentum=self.momentum,
            generator=generator,
        )

    def passes(self, images: int) -> float:
        """One gradient pass per step and restart."""
        return self.count(images) * self.threat.steps * self.restarts

    def describe(self, detail: Mapping[str, Any]) -> str:
        """See ``Metric.describe``."""
        own = self.model_dump(mode="json", exclude={"threat"})
        said = {**detail, **own, **self.threat.model_dump(mode="json")}
        if not self.momentum:
            del said["momentum"]
        if self.precision == "fp32":
            del said["precision"]
        return sentence(said, _WORDS)
