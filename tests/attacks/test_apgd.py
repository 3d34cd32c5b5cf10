"""APGD against the library's own, and the l_1 projection against brute force."""

from __future__ import annotations

import pytest
import torch
from pyautoattack import autopgd_base
from pyautoattack.autopgd_base import APGDAttack
from tiny_learners import images, tiny_net
from torch import Tensor

from benchmark.attacks.apgd import _APGD, EVALUATION_DENSITY, apgd, project_l1_box
from benchmark.attacks.norms import norm_of
from benchmark.core.crafting import crafting
from benchmark.core.threat import Pixels, ThreatModel

EPS = {"linf": 0.05, "l2": 0.8, "l1": 6.0}


def threat(norm: str, steps: int) -> ThreatModel:
    return ThreatModel.model_validate({"norm": norm, "eps": EPS[norm], "steps": steps})


@pytest.mark.parametrize("steps", [1, 5, 10, 40])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_librarys_iterates(norm: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step sizes, momentum, sparsity, checkpoints and restarts from the best, from the same start;
    AutoAttack's l_1 attack starts with a density of 0.2."""
    x, y = images(48)
    # Given a start, the library takes the density from it; without noise its own start is x.
    monkeypatch.setattr(torch, "randn", torch.zeros)
    # It counts the coordinates that differ from x, those that differ by rounding too.
    monkeypatch.setattr(autopgd_base, "L0_norm", lambda d: (d.abs() > 1e-6).flatten(1).sum(1))
    model = tiny_net().eval()
    with torch.no_grad():
        model.head.weight.mul_(4)
    name = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    theirs = APGDAttack(
        model, n_iter=steps, norm=name, eps=EPS[norm], loss="ce", device="cpu", seed=0
    )
    theirs.init_hyperparam(x)
    x_best, right, loss_best, _ = theirs.attack_single_run(x, y, None if norm == "l1" else x)
    with crafting(model):
        ours, resisted = apgd(model, x, y, threat(norm, steps), density=EVALUATION_DENSITY)
        loss = torch.nn.functional.cross_entropy(model(ours), y, reduction="none")
    torch.testing.assert_close(loss, loss_best, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours, x_best, rtol=0, atol=1e-4)
    assert torch.equal(resisted, right.bool())


def test_training_starts_with_a_twentieth_of_the_coordinates() -> None:
    """Protects E-AT's l_1 attack: 5 % of the coordinates move first (20 % in AutoAttack), by equal
    amounts along the largest gradients; by a plain loop."""
    x, y = images(16)
    x = 0.25 + x / 2  # nothing reaches the border
    model = tiny_net().eval()
    here = x.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(here), y, reduction="sum")
    (grad,) = torch.autograd.grad(loss, here)
    for density, moved in ((None, 10), (0.2, 39)):  # of 192
        given = {} if density is None else {"density": density}
        small = threat("l1", 1).model_copy(update={"eps": Pixels("0.5")})
        with crafting(model):
            x_adv, _ = apgd(model, x, y, small, **given)
        for image, attacked, slope in zip(x, x_adv, grad, strict=True):
            slopes = slope.flatten().tolist()
            largest = sorted(range(192), key=lambda i: -abs(slopes[i]))[:moved]
            expected = image.flatten().clone()
            for i in largest:
                expected[i] += 0.5 / moved * (1 if slopes[i] > 0 else -1)
            torch.testing.assert_close(attacked.flatten(), expected, rtol=0, atol=1e-5)


def test_the_first_step_is_compared_with_nothing() -> None:
    """As in the code: its step size is not halved because the first step lost, only because later
    ones do. A loss that falls, then rises, over steps whose first checkpoint comes after two."""
    values = iter([3.0, 1.0, 2.0, 2.0])
    run = _APGD(torch.full((1, 1, 2, 2), 0.5), threat("linf", 10))
    grad = torch.ones(1, 1, 2, 2)
    here = run.x
    for step in range(3):
        run.note(here, torch.tensor([next(values)]), grad)
        here = run.next(step)
    assert run.size == 2 * run.eps


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_stays_in_ball_and_box_and_never_loses(norm: str) -> None:
    x, y = images(16)
    x = x.round()  # corners of the box, where most l_1 steps are blocked
    model = tiny_net().eval()
    with crafting(model):
        x_adv, _ = apgd(model, x, y, threat(norm, 10))
        before, after = (
            torch.nn.functional.cross_entropy(model(z), y, reduction="none") for z in (x, x_adv)
        )
    assert norm_of(norm).length(x_adv - x).max() <= EPS[norm] * (1 + 1e-4)
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert (after >= before).all()
    assert (after > before).float().mean() > 0.9


def test_l1_attack_is_stronger_than_pgd_of_as_many_steps() -> None:
    """It must be worth its name: sparse steps inside the box beat plain l_1 steps."""
    from benchmark.attacks import pgd

    x, y = images(32)
    model = tiny_net().eval()
    with crafting(model):
        adaptive, _ = apgd(model, x, y, threat("l1", 10))
        plain = pgd(model, x, y, threat("l1", 10), start="none")
        one, other = (torch.nn.functional.cross_entropy(model(z), y) for z in (adaptive, plain))
    assert one > other


def _brute_force(x: Tensor, delta: Tensor, eps: float) -> Tensor:
    """Projected by bisection on the Lagrange multiplier of ||d||_1 <= eps, one coordinate a time."""
    low, high = 0.0, float(delta.abs().max())
    best = None
    for _ in range(200):
        t = (low + high) / 2
        d = [max(-float(a), min(1 - float(a), (abs(float(v)) - t if abs(float(v)) > t else 0.0)
                                * (1 if v > 0 else -1))) for a, v in zip(x, delta, strict=True)]  # fmt: skip
        if sum(map(abs, d)) > eps:
            low = t
        else:
            high, best = t, d
        if t < 1e-15:
            break
    unclipped = [max(-float(a), min(1 - float(a), float(v))) for a, v in zip(x, delta, strict=True)]
    if sum(map(abs, unclipped)) <= eps:
        best = unclipped
    return torch.tensor(best, dtype=x.dtype)


@pytest.mark.parametrize("eps", [0.5, 3.0, 1000.0])
def test_projection_onto_ball_and_box(eps: float) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(6, 3, 2, 2, generator=draw, dtype=torch.float64)
    x[:, 0] = x[:, 0].round()
    delta = torch.randn(6, 3, 2, 2, generator=draw, dtype=torch.float64)
    projected = project_l1_box(x, delta, eps)
    for i in range(6):
        expected = _brute_force(x[i].flatten(), delta[i].flatten(), eps)
        torch.testing.assert_close(projected[i].flatten(), expected, rtol=0, atol=1e-9)
    # no point of the set is nearer: checked on many random ones
    for seed in range(50):
        other = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).double()
        other = (x + other).clamp(0, 1) - x
        other *= (eps / other.abs().flatten(1).sum(1)).clamp_max(1).view(-1, 1, 1, 1)
        far, near = ((delta - z).flatten(1).norm(dim=1) for z in (other, projected))
        assert (near <= far + 1e-9).all()


def test_step_size_of_the_threat_model_is_not_used() -> None:
    x, y = images(4)
    model = tiny_net().eval()
    one = threat("linf", 3)
    other = one.model_copy(update={"step": Pixels("0.001")})
    with crafting(model):
        assert torch.equal(apgd(model, x, y, one)[0], apgd(model, x, y, other)[0])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_towards_a_class_from_a_start(norm: str) -> None:
    """The best iterate has the largest z_target - z_y, never a smaller one than the start, and the
    classes that are not the target do not matter."""
    x, y = images(16)
    model = tiny_net().eval()
    target = (y + 1) % 3
    small = threat(norm, 10)
    start = norm_of(norm).admit(x + 0.001, x, EPS[norm])

    def towards(x_adv: Tensor) -> Tensor:
        logits = model(x_adv)
        return (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).squeeze(1)

    with crafting(model), torch.no_grad():
        found, _ = apgd(model, x, y, small, target=target, start=start)
        assert (towards(found) >= towards(start)).all()
        assert (towards(found) > towards(start)).float().mean() > 0.9
        assert (norm_of(norm).length(found - x) <= EPS[norm] * (1 + 1e-4)).all()
