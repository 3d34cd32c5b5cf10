"""Attacks of other libraries, where they are installed: torchattacks and foolbox.

torchattacks overwrites an installed RobustBench; put it, without its dependencies, into an
environment of its own (``pip install --no-deps torchattacks``).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType

from torch import Tensor, nn

from benchmark.core.threat import ThreatModel

LIBRARIES = ("torchattacks", "foolbox")
Attack = Callable[[Tensor, Tensor], Tensor]  # images [n, 3, h, w] in [0, 1], labels -> examples


def missing() -> list[str]:
    """The libraries that are not installed."""
    return [name for name in LIBRARIES if find_spec(name) is None]


def pgd_attacks(model: nn.Module, threat: ThreatModel) -> dict[str, Attack]:
    """l_inf PGD from a uniform start by library; ``model`` is in eval mode."""
    eps, step = float(threat.eps), float(threat.step)
    attacks: dict[str, Attack] = {}
    if torchattacks := _module("torchattacks"):
        attacks["torchattacks"] = torchattacks.PGD(model, eps=eps, alpha=step, steps=threat.steps)
    if foolbox := _module("foolbox"):
        attack = foolbox.attacks.LinfPGD(abs_stepsize=step, steps=threat.steps)
        device = next(model.parameters()).device
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=device)
        attacks["foolbox"] = lambda x, y: attack(wrapped, x, y, epsilons=eps)[1]
    return attacks


def autoattack_parts(
    model: nn.Module, eps: float, *, steps: int, targets: int, queries: int
) -> dict[tuple[str, str], Attack]:
    """AutoAttack's parts under l_inf by (our name, library)."""
    attacks: dict[tuple[str, str], Attack] = {}
    if torchattacks := _module("torchattacks"):
        same = {"norm": "Linf", "eps": eps, "seed": 0}
        attacks = {
            ("apgd-ce", "torchattacks"): torchattacks.APGD(model, steps=steps, **same),
            ("apgd-t", "torchattacks"): torchattacks.APGDT(
                model, steps=steps, n_classes=targets + 1, **same
            ),
            ("fab-t", "torchattacks"): torchattacks.FAB(
                model, steps=steps, multi_targeted=True, n_classes=targets + 1, **same
            ),
            ("square", "torchattacks"): torchattacks.Square(model, n_queries=queries, **same),
        }
    return attacks


def _module(name: str) -> ModuleType | None:
    return None if find_spec(name) is None else importlib.import_module(name)
