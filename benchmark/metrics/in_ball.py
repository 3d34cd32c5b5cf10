"""What the metrics that run AutoAttack's attacks share: a norm ball, and images in one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import model_validator
from torch import Tensor
from typing_extensions import Self

from benchmark.attacks.autoattack import Attack, AutoAttackResult, run_autoattack
from benchmark.core.precision import Precision
from benchmark.core.threat import NormName, Pixels, check_eps
from benchmark.metrics.metric import FORWARD, Context, Metric

# Gradient and forward passes per image that survives, counted on pyautoattack 0.2 with 10 classes.
_PASSES: dict[Attack, tuple[int, int]] = {
    "apgd-ce": (101, 0),
    "apgd-dlr": (101, 0),
    "apgd-t": (909, 10),
    "fab": (1000, 200),
    "fab-t": (900, 910),
    "square": (0, 5001),
}


def attack_work(*attacks: Attack) -> float:
    """Passes per image that survives the attacks, in input-gradient passes."""
    passes = [_PASSES[attack] for attack in attacks]
    return sum(gradients + FORWARD * forwards for gradients, forwards in passes)


class InBall(Metric):
    """An attack of AutoAttack's family in a norm ball.

    Attributes:
        norm: of the ball.
        eps: its radius, pixels in [0, 1].
    """

    norm: NormName = "linf"
    eps: Pixels = Pixels("8/255")

    role = "attack"
    count_option = "--n-aa"
    # AutoAttack's batches are shared among processes.
    shared = True

    @model_validator(mode="after")
    def _check_units(self) -> Self:
        check_eps(self.eps, self.norm)
        return self

    @property
    def ball(self) -> tuple[NormName, Pixels]:
        """See ``Metric.ball``."""
        return self.norm, self.eps

    def attacked(
        self,
        context: Context,
        indices: Tensor,
        journal: Path,
        attacks: list[Attack] | None = None,
        precision: Precision = "fp32",
    ) -> AutoAttackResult:
        """The attacks on these test images; unfinished batches are kept in ``journal``."""
        setup = context.setup
        batches = list(setup.batches(indices))
        x, y = torch.cat([b[1] for b in batches]), torch.cat([b[2] for b in batches])
        with setup.progress.task(context.label(self), 1) as task:

            def report(done: int, total: int, attack: str | None = None) -> None:
                task.resize(total)
                task.advance(done - task.done, attack or "")

            return run_autoattack(
                context.model,
                x,
                y,
                norm=self.norm,
                eps=float(self.eps),
                seed=self.seed,
                attacks=attacks,
                batch_size=setup.batch_size,
                precision=precision,
                progress=report,
                journal=journal,
                ranks=setup.ranks,
            )

    def result_detail(self, result: AutoAttackResult) -> dict[str, Any]:
        """The settings and side results for the record."""
        return {
            "norm": self.norm,
            "eps": str(self.eps),
            "version": "standard",
            "attacks": result.attacks,
            "targets": result.targets,
            "after": result.after,
            "disputed": int(result.disputed.sum()),
            "folded": result.folded,
            "precision": result.precision,
            "warnings": result.warnings,
            "versions": result.versions,
        }


# How the record's details read in a footnote, for all of these metrics.
WORDS = {
    "norm": "{}",
    "eps": "eps {}",
    "version": "version {}",
    "cheap": "cheap attacks {}",
    "until": "of the images that survive them {}",
    "attacks": "{}",
    "precision": "crafted in {}",
    "seed": "seed {}",
    "bn_mode": "BatchNorm in {} mode",
}
