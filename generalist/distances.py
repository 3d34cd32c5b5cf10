"""How far the learners of a Generalist are apart."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from benchmark.core.averaging import floating_state, move_towards
from benchmark.core.learner import Learner
from benchmark.core.mesh import Axis


@torch.no_grad()
def distances(
    learners: Mapping[str, Learner], centre: list[Tensor], axis: Axis
) -> dict[str, Tensor]:
    """By learner, the l_2 distance of its weights from ``centre``.

    All processes of ``axis``, which share the learners out, must call this.
    """
    found = {name: centre[0].new_zeros(()) for name in learners}
    for name, learner in learners.items():
        if learner.here:
            own = floating_state(learner.model, buffers=False)
            norms = torch._foreach_norm(torch._foreach_sub(own, centre))
            found[name] = torch.stack(norms).norm()
    axis.sum_(list(found.values()))
    return found


@torch.no_grad()
def farthest(learners: Mapping[str, Learner], weights: list[Tensor], axis: Axis) -> Tensor:
    """The l_2 distance of the learner that is farthest from the mean of the others (for two
    learners, their distance), over the norm of ``weights``.

    All processes of ``axis`` must call this.
    """
    count = len(learners)
    mean = [torch.zeros_like(weight) for weight in weights]
    here = [floating_state(item.model, buffers=False) for item in learners.values() if item.here]
    move_towards(mean, here, [1 / count] * len(here), 0.0, axis)
    # theta_k less the mean of the others is count / (count - 1) times theta_k less the mean of all.
    largest = torch.stack(list(distances(learners, mean, axis).values())).max()
    return largest * count / (count - 1) / torch.stack(torch._foreach_norm(weights)).norm()
