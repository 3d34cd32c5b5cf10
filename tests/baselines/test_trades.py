"""TRADES by its equation: the four things that implementations get wrong."""

from __future__ import annotations

import pytest
import torch
from tiny_learners import images, recipe, relative_error, tiny_net, tiny_setting
from torch import Tensor, nn

from baselines.trades import TRADES
from benchmark.core.learner import Learner
from benchmark.core.method import SingleLearner
from benchmark.core.objective import Step

F64 = torch.float64


def probabilities(logits: Tensor) -> Tensor:
    return torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True)


def by_hand(
    model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, beta: float, detach: bool = False
) -> Tensor:
    """CE(f(x), y) + beta / n * sum_i sum_k p_ik log(p_ik / q_ik), example by example."""
    p, q = probabilities(model(x)), probabilities(model(x_adv))
    target = p.detach() if detach else p
    total = x.new_zeros(())
    for i in range(len(x)):
        total = total - torch.log(p[i, y[i]])
        total = total + beta * (target[i] * (torch.log(target[i]) - torch.log(q[i]))).sum()
    return total / len(x)


def gradients(loss: Tensor, model: nn.Module) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


@pytest.fixture
def model() -> nn.Module:
    net = tiny_net(dtype=F64).train()
    with torch.no_grad():
        net.head.weight.mul_(5)  # probabilities away from 1/3
    return net


@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
def test_loss_is_batchmean_with_gradient_through_both_arguments(
    model: nn.Module, beta: float
) -> None:
    """``mean`` would divide KL by the classes too; a detached target would lose half the gradient."""
    x, y = images(8, dtype=F64)
    x_adv = (x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(
        0, 1
    )
    loss = TRADES(beta=beta).loss(model, x, x_adv, y, Step())
    expected = by_hand(model, x, x_adv, y, beta)
    assert relative_error(loss, expected) < 1e-9
    actual = gradients(loss, model)
    assert relative_error(actual, gradients(expected, model)) < 1e-6
    detached = gradients(by_hand(model, x, x_adv, y, beta, detach=True), model)
    assert beta == 0 or relative_error(actual, detached) > 1e-3


def test_start_is_a_thousandth_of_a_normal(model: nn.Module) -> None:
    """x + 0.001 * N(0, I), with steps too small to be seen."""
    objective = TRADES.model_validate({"threat": {"eps": "8/255", "step": 1e-9, "steps": 2}})
    x, y = torch.full((16, 3, 8, 8), 0.5, dtype=F64), images(16)[1]
    noise = objective.perturb(model.eval(), x, y, Step(0.0, torch.Generator().manual_seed(0))) - x
    assert float(noise.std()) == pytest.approx(0.001, rel=0.05)
    assert abs(float(noise.mean())) < 1e-4
    assert 0.03 < float((noise.abs() > 0.002).double().mean()) < 0.065  # normal: 4.6 %


def test_attack_climbs_kl_from_the_fixed_clean_prediction(model: nn.Module) -> None:
    """Two steps by hand: sign of the gradient of KL(p(x) : p(x_adv)) with p(x) a constant."""
    model.eval()
    data = {"norm": "linf", "eps": "8/255", "step": "5/255", "steps": 2}
    objective = TRADES.model_validate({"threat": data})
    x, y = images(8, dtype=F64)
    actual = objective.perturb(model, x, y, Step(0.0, torch.Generator().manual_seed(3)))
    noise = torch.empty_like(x).normal_(generator=torch.Generator().manual_seed(3))
    clean = probabilities(model(x)).detach()
    here = (x + 0.001 * noise).clamp(0, 1)
    for _ in range(2):
        here.requires_grad_()
        adversarial = probabilities(model(here))
        (grad,) = torch.autograd.grad((clean * torch.log(clean / adversarial)).sum(), here)
        moved = here.detach() + 5 / 255 * grad.sign()
        here = torch.minimum(torch.maximum(moved, x - 8 / 255), x + 8 / 255).clamp(0, 1)
    torch.testing.assert_close(actual, here, rtol=0, atol=1e-12)
    # The labels play no part in it.
    other = objective.perturb(model, x, (y + 1) % 3, Step(0.0, torch.Generator().manual_seed(3)))
    assert torch.equal(actual, other)


def test_batchnorm_sees_clean_and_adversarial_once() -> None:
    """The declared departure: the official code runs the clean batch twice per step."""
    config = recipe("trades")
    assert isinstance(config, SingleLearner)
    learner = Learner(config.learner, tiny_setting())
    learner.step(*images(8), 0.0)
    assert int(learner.model.norm.num_batches_tracked) == 2
