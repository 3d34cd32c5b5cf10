"""Which first steps of a learner leave no trace in the global learner."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmark.core.learner import Learner

# Parts of the names of modules that draw random numbers in train mode.
_DRAWING = ("drop", "stochastic", "noise", "rrelu", "fractional")


def overwritten_steps(constant: int, warmup: int, every: int) -> int:
    """After how many steps the last redistribution within the first ``constant`` ones comes.

    Args:
        constant: the first steps, during which no mixing ratio changes.
        warmup: steps before the first redistribution.
        every: steps from one to the next; 0: there is none.
    """
    if not every or constant < max(1, warmup):
        return 0
    return warmup + (constant - warmup) // every * every


def leaves_nothing(learner: Learner, *, optimizer_reset: bool, buffers_copied: bool) -> bool:
    """Whether everything else stays the same, bit by bit, if a learner rests until its weights
    are overwritten.

    A redistribution overwrites parameters and floating-point buffers, and nothing else. So it must
    not leave behind: the optimiser's state (momentum, unless reset or not there at all); the
    position of random draws (of the objective, or of dropout and the like, which all learners draw
    from one source); a count of batches that is used (BatchNorm without a fixed momentum) or handed
    on; any other integer state of the network. Order and augmentation of images and the learning
    rate depend on the step alone. Draws that a network makes outside a module are not seen here.

    Args:
        optimizer_reset: a redistribution resets optimisers.
        buffers_copied: the global learner takes a learner's buffers whole (``batchnorm: copy``).
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
