"""The state a model must be in while it is attacked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

# The mode of a model while training images are crafted on it; see ``crafting``.
BatchNormMode = Literal["eval", "batch", "train"]


@contextmanager
def crafting(model: nn.Module, batchnorm: BatchNormMode = "eval") -> Iterator[nn.Module]:
    """Put ``model`` in the state in which adversarial examples are crafted, and restore it.

    No parameter requires a gradient. The mode decides what BatchNorm does:

    * ``"eval"``: every module is in eval mode, so BatchNorm uses its running averages.
    * ``"batch"``: as ``"eval"``, but BatchNorm normalises by the statistics of the batch. The
      running averages stay unchanged.
    * ``"train"``: every module is in train mode, dropout too. BatchNorm normalises by the
      statistics of the batch, and every forward pass of the attack moves the running averages, as
      in training codes that call ``model.train()`` once and attack the model in that mode.

    Afterwards, train/eval flags and ``requires_grad`` are as before, also after an exception; so
    are buffers, unless the mode is ``"train"``.
    """
    modes = [(module, module.training) for module in model.modules()]
    frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    tracking = []
    try:
        model.train(batchnorm == "train")
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
