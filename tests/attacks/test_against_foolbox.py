"""PGD beside an independent implementation: the same start gives the same final loss."""

from __future__ import annotations

import pytest
import torch
from tiny_learners import images, tiny_net

from benchmark.attacks import pgd
from benchmark.core.crafting import crafting
from benchmark.core.threat import ThreatModel

foolbox = pytest.importorskip("foolbox", reason="foolbox is installed by the dev extra")


@pytest.mark.parametrize("steps", [1, 20])
@pytest.mark.parametrize(
    ("norm", "name", "eps", "step"), [("linf", "LinfPGD", 0.06, 0.01), ("l2", "L2PGD", 0.9, 0.15)]
)
def test_same_final_loss(norm: str, name: str, eps: float, step: float, steps: int) -> None:
    x, y = images(24)
    model = tiny_net().eval()
    with torch.no_grad():
        model.head.weight.mul_(4)
    attack = getattr(foolbox.attacks, name)(abs_stepsize=step, steps=steps, random_start=False)
    theirs, _, _ = attack(
        foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), x, y, epsilons=eps
    )
    threat = ThreatModel.model_validate({"norm": norm, "eps": eps, "step": step, "steps": steps})
    with crafting(model):
        ours = pgd(model, x, y, threat, start="none")
        one, other, clean = (
            torch.nn.functional.cross_entropy(model(z), y, reduction="none")
            for z in (ours, theirs, x)
        )
    assert one.mean() > clean.mean() + 0.001
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
