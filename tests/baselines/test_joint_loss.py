"""The joint loss and its two extremes; PGD-AT and natural training beside it."""

from __future__ import annotations

import pytest
import torch
from tiny_learners import images, relative_error, tiny_net
from torch import Tensor, nn

from baselines.joint import Joint
from baselines.natural import Natural
from baselines.pgd_at import PGDAT
from benchmark.attacks import pgd
from benchmark.core.objective import Objective, Step


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    logits = model(x)
    return -torch.stack([torch.log(logits[i].softmax(0)[y[i]]) for i in range(len(x))]).mean()


@pytest.mark.parametrize(
    ("objective", "share"),
    [(Joint(share=s), s) for s in (0.0, 0.3, 0.5, 1.0)] + [(Natural(), 0.0), (PGDAT(), 1.0)],
    ids=lambda value: value if isinstance(value, float) else type(value).__name__,
)
def test_loss_and_gradient(objective: Objective, share: float) -> None:
    """(1 - share) * CE(f(x), y) + share * CE(f(x_adv), y): 0 is natural training, 1 is PGD-AT."""
    model = tiny_net(dtype=torch.float64).train()
    x, y = images(8, dtype=torch.float64)
    x_adv = x.flip(3)
    loss = objective.loss(model, x, x_adv, y, Step())
    expected = (1 - share) * cross_entropy(model, x, y) + share * cross_entropy(model, x_adv, y)
    assert relative_error(loss, expected) < 1e-12
    for actual, by_hand in zip(
        torch.autograd.grad(loss, list(model.parameters())),
        torch.autograd.grad(expected, list(model.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(actual, by_hand, rtol=1e-9, atol=1e-12)


def test_perturbations() -> None:
    """Natural trains on the images themselves; the others on PGD of the cross-entropy."""
    model = tiny_net(dtype=torch.float64).eval()
    x, y = images(8, dtype=torch.float64)
    assert torch.equal(Natural().perturb(model, x, y, Step()), x)
    for objective in (Joint(), PGDAT()):
        crafted = objective.perturb(model, x, y, Step(0.0, torch.Generator().manual_seed(0)))
        again = pgd(model, x, y, objective.threat, generator=torch.Generator().manual_seed(0))
        assert torch.equal(crafted, again)
        assert cross_entropy(model, crafted, y) > cross_entropy(model, x, y)
