"""What metrics with a setting for PGD share: how the attack is named, described and run."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmark.core.threat import ThreatModel
from benchmark.data.dataset import AnySplit
from benchmark.metrics.metric import FORWARD, norm_in_title, sentence
from benchmark.metrics.outcomes import Advance, clean_outcomes, pgd_outcomes

_WORDS = {"norm": "PGD {}", "eps": "eps {}", "step": "step {}", "steps": "{} steps"}


def pgd_name(threat: ThreatModel) -> str:
    """Such as pgd20_linf: the number of steps and the norm."""
    return f"pgd{threat.steps}_{threat.norm}"


def pgd_title(threat: ThreatModel) -> str:
    """Such as PGD-20; the norm is said unless it is l_inf."""
    return f"PGD-{threat.steps}{norm_in_title(threat.norm)}"


def pgd_words(threat: ThreatModel) -> str:
    """The settings in words, such as PGD linf, eps 8/255, step 2/255, 20 steps."""
    return sentence(threat.model_dump(mode="json"), _WORDS)


def passes_of(threat: ThreatModel | None) -> float:
    """Per image, in gradient passes; without an attack a forward pass."""
    return threat.steps if threat else FORWARD


def outcomes_under(
    model: nn.Module,
    split: AnySplit,
    indices: Tensor,
    threat: ThreatModel | None,
    *,
    seed: int,
    batch_size: int,
    device: torch.device,
    advance: Advance | None = None,
) -> Tensor:
    """Whether each image is right, bool [len(indices)] on the CPU.

    With a threat model: right as it is and at the last iterate of PGD, see ``pgd_outcomes``.
    """
    if threat is None:
        return clean_outcomes(
            model, split, indices, batch_size=batch_size, device=device, advance=advance
        )
    return pgd_outcomes(
        model,
        split,
        indices,
        threat,
        seed=seed,
        batch_size=batch_size,
        device=device,
        advance=advance,
    )
