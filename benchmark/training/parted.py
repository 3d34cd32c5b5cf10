"""The last checkpoint in which base learners are different networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmark.core.averaging import floating_state
from benchmark.core.errors import CheckpointError
from benchmark.core.method import Method
from benchmark.training import checkpoint


def bring_apart(method: Method, state: Mapping[str, Any], path: Path) -> int | None:
    """Bring ``method`` to the last checkpoint in which its learners differ.

    The last step of a training often hands the mixture back to all of them; the checkpoint before
    it is looked at then.

    Args:
        method: as it is in the checkpoint at ``path``, whose content is ``state``.

    Returns:
        The step of that checkpoint, None if there is none.
    """
    if differ(method):
        return int(state["step"])
    try:
        before = checkpoint.load(checkpoint.previous(path))
    except CheckpointError:
        return None
    if before["config"] != state["config"]:
        return None
    method.load_state_dict(before["method"])
    return int(before["step"]) if differ(method) else None


def differ(method: Method) -> bool:
    """Whether the base learners are different networks."""
    first, *others = (floating_state(item.model) for item in method.learners.values())
    return any(
        one.shape != two.shape or not torch.equal(one, two)
        for other in others
        for one, two in zip(first, other, strict=False)
    )
