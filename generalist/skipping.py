"""Which first steps of a learner have no effect on the global learner and can be skipped."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmark.core.learner import Learner

# Parts of the names of modules that draw random numbers in train mode.
_DRAWING = ("drop", "stochastic", "noise", "rrelu", "fractional")


def overwritten_steps(constant: int, warmup: int, every: int) -> int:
    """The number of steps before the last redistribution within the first ``constant`` steps.

    Args:
        constant: number of first steps in which no mixing ratio changes.
        warmup: number of steps before the first redistribution.
        every: number of steps from one redistribution to the next; 0: there is none.
    """
    if not every or constant < max(1, warmup):
        return 0
    return warmup + (constant - warmup) // every * every


def leaves_nothing(learner: Learner, *, optimizer_reset: bool, buffers_copied: bool) -> bool:
    """Whether everything else stays bit-identical if a learner skips its steps until its weights
    are overwritten.

    A redistribution overwrites parameters and floating-point buffers, but nothing else. So the
    skipped steps must not change anything else that has an effect later: the optimiser's state
    (momentum, unless it is reset or there is none); the state of a random generator (of the
    objective, or of layers such as dropout, for which all learners share one generator); a count of
    batches that is used (BatchNorm without a fixed momentum) or copied; any other integer state of
    the network. The order and augmentation of images and the learning rate depend only on the step.
    Random draws that a network makes outside of a module cannot be detected here.

    Args:
        optimizer_reset: whether a redistribution resets optimisers.
        buffers_copied: whether the global learner copies a learner's buffers (``batchnorm: copy``).
    """
    optimizer = learner.config.optimizer
    stateless = optimizer.name == "sgd" and not optimizer.momentum
    return (
        (stateless or optimizer_reset)
        and not buffers_copied
        and not learner.objective.draws
        and all(map(_overwritten, learner.model.modules()))
    )


def _overwritten(module: nn.Module) -> bool:
    """Whether a redistribution overwrites all that a module's passes in train mode change."""
    if any(word in type(module).__name__.lower() for word in _DRAWING):
        return False
    counted = isinstance(module, _BatchNorm) and module.momentum is not None
    return all(
        buffer.is_floating_point() or (counted and name == "num_batches_tracked")
        for name, buffer in module.named_buffers(recurse=False)
    )
