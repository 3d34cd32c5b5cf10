"""The state a model must be in while it is attacked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

# While crafting, BatchNorm uses its running statistics ("eval") or those of the batch ("batch").
BatchNormMode = Literal["eval", "batch"]


@contextmanager
def crafting(model: nn.Module, batchnorm: BatchNormMode = "eval") -> Iterator[nn.Module]:
    """Put ``model`` in the state in which adversarial examples are crafted, and restore it exactly.

    Every module is in eval mode and no parameter asks for a gradient. With ``batchnorm="batch"``
    the BatchNorm layers normalise by the statistics of the batch, as ``model.train()`` would, but
    without touching their running averages. Train/eval flags, ``requires_grad`` and BatchNorm
    buffers are as before afterwards, whatever happens inside.
    """
    modes = [(module, module.training) for module in model.modules()]
    frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    tracking = []
    try:
        model.eval()
        for parameter in frozen:
            parameter.requires_grad_(False)
        if batchnorm == "batch":
            for module in model.modules():
                if isinstance(module, _BatchNorm):
                    tracking.append((module, module.track_running_stats))
                    module.train()
                    # Without tracking, the running averages are neither used nor updated.
                    module.track_running_stats = False
        yield model
    finally:
        for module, tracks in tracking:
            module.track_running_stats = tracks
        for parameter in frozen:
            parameter.requires_grad_(True)
        for module, training in modes:
            module.training = training
