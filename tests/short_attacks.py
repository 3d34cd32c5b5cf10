"""AutoAttack with fewer and shorter attacks, for tests of what is around it."""

from __future__ import annotations

from typing import Any

import pytest
from pyautoattack import AutoAttack

from benchmark.attacks import autoattack


def shorten(
    patch: pytest.MonkeyPatch, *attacks: str, steps: int = 100, targets: int | None = None
) -> None:
    """From now on ``attacks`` are the standard version; ``steps`` and ``targets`` are APGD's."""
    whole = autoattack.attack_objects

    def short(*arguments: Any) -> AutoAttack:
        objects = whole(*arguments)
        objects.attacks_to_run = list(attacks)
        objects.apgd.n_iter = objects.apgd_targeted.n_iter = steps
        if targets:
            objects.apgd_targeted.n_target_classes = targets
        return objects

    patch.setattr(autoattack, "attack_objects", short)
