"""How methods choose their training images: the rules that implementations get wrong."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from tiny_learners import CONTEXT, images, recipe, tiny_net, tiny_setting
from torch import Tensor, nn

from baselines.augmentation import GaussianNoise, Rotation
from baselines.fast_at import FGSMRS, NFGSM
from baselines.fat import FAT, FATTRADES
from baselines.multi_norm import MAX, MSD, SAT
from benchmark.attacks import pgd
from benchmark.attacks.norms import norm_of
from benchmark.core.crafting import crafting
from benchmark.core.objective import Objective, Step
from benchmark.core.threat import ThreatModel

THREATS = {name: ThreatModel.model_validate(t) for name, t in CONTEXT["threats"].items()}
EPS = float(THREATS["linf"].eps)


def draws(seed: int = 0) -> Step:
    return Step(0.0, torch.Generator().manual_seed(seed))


def network(scale: float = 4.0) -> nn.Module:
    model = tiny_net()
    with torch.no_grad():
        model.head.weight.mul_(scale)
    return model.eval()


def make(cls: type[Objective], **hyper: object) -> Objective:
    return cls.model_validate(hyper, context={"threats": THREATS})


def perturb(objective: Objective, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
    with crafting(model):
        return objective.perturb(model, x, y, step)


def losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return F.cross_entropy(model(x), y, reduction="none")


def test_fgsm_rs_is_one_projected_step_of_one_and_a_quarter_eps() -> None:
    (x, y), model = images(6), network()
    actual = perturb(make(FGSMRS), model, x, y, draws())
    start = (x + torch.empty_like(x).uniform_(-EPS, EPS, generator=draws().generator)).clamp(0, 1)
    start.requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(model(start), y, reduction="sum"), start)
    moved = start.detach() + 1.25 * EPS * grad.sign()
    expected = torch.min(torch.max(moved, x - EPS), x + EPS).clamp(0, 1)
    torch.testing.assert_close(actual, expected)


def test_n_fgsm_leaves_the_ball() -> None:
    """Noise of 2 eps and a step of eps, clipped to [0, 1] alone."""
    (x, y), model = images(6), network()
    actual = perturb(make(NFGSM), model, x, y, draws())
    noise = torch.empty_like(x).uniform_(-2 * EPS, 2 * EPS, generator=draws().generator)
    start = (x + noise).clamp(0, 1).requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(model(start), y, reduction="sum"), start)
    torch.testing.assert_close(actual, (start.detach() + EPS * grad.sign()).clamp(0, 1))
    assert EPS * 2 < (actual - x).abs().max() <= 3 * EPS * (1 + 1e-5)
    with pytest.raises(ValueError, match="defined for linf"):
        make(NFGSM, threat="l2")


@pytest.mark.parametrize("cls", [FAT, FATTRADES])
@pytest.mark.parametrize("tau", [0, 1])
def test_friendly_examples_stop_and_stay_in_order(cls: type[Objective], tau: int) -> None:
    """Protects: the released code returns the batch re-ordered; a label must keep its image."""
    (x, y), model = images(40), network()
    threat = THREATS["linf"].model_copy(update={"steps": 6, "step": THREATS["linf"].eps})
    objective = make(cls, threat=threat, tau=tau, omega=0.0)
    step = draws()
    actual = perturb(objective, model, x, y, step)
    assert norm_of("linf").length(actual - x).max() <= EPS * (1 + 1e-5)
    start = "uniform" if cls is FAT else "gaussian"
    # image by image: the trajectory of plain PGD, cut tau steps after the first mistake
    path = [
        pgd(model, x, y, threat.model_copy(update={"steps": n}), loss="ce" if cls is FAT else "kl",
            start=start, generator=draws().generator)
        for n in range(1, 7)
    ]  # fmt: skip
    noise = draws().generator
    if cls is FAT:
        first = (x + torch.empty_like(x).uniform_(-EPS, EPS, generator=noise)).clamp(0, 1)
    else:
        first = (x + 0.001 * torch.empty_like(x).normal_(generator=noise)).clamp(0, 1)
    path.insert(0, first)
    with torch.no_grad():
        wrong = torch.stack([model(z).argmax(1) != y for z in path])
    stopped = 0
    for i in range(len(x)):
        patience, at = tau, 6
        for n in range(6):
            if wrong[n, i] and patience == 0:
                at = n
                break
            patience -= int(wrong[n, i])
        stopped += at < 6
        torch.testing.assert_close(actual[i], path[at][i], rtol=0, atol=1e-6)
    assert 0 < stopped < len(x)


def test_tau_grows_with_training() -> None:
    fat, trades = make(FAT), make(FATTRADES)
    assert [round(fat.tau(e / 120)) for e in (0, 49, 51, 89, 91, 120)] == [0, 0, 1, 1, 2, 2]  # type: ignore[attr-defined]
    assert [round(trades.tau(p)) for p in (0.2, 0.4, 0.6, 0.8)] == [0, 1, 2, 3]  # type: ignore[attr-defined]


def test_max_takes_the_worst_norm_of_each_image() -> None:
    (x, y), model = images(24), network()
    actual = perturb(make(MAX), model, x, y, draws())
    generator = draws().generator
    with crafting(model):
        each = [pgd(model, x, y, t, generator=generator) for t in THREATS.values()]
    table = torch.stack([losses(model, z, y) for z in each])
    assert len(set(table.argmax(0).tolist())) > 1
    for i, k in enumerate(table.argmax(0).tolist()):
        assert torch.equal(actual[i], each[k][i])


def test_msd_chooses_per_example_and_keeps_the_best_iterate() -> None:
    (x, y), model = images(24), network()
    msd = make(MSD, steps=4, sizes={"linf": 0.01, "l2": 0.11, "l1": 3.0})
    whole = perturb(msd, model, x, y, draws())
    # The l_1 step draws k; with one norm left out nothing is random, and images are independent.
    two = make(MSD, steps=4, sizes={"linf": 0.01, "l2": 0.11}, threats=["linf", "l2"])
    batch = perturb(two, model, x, y, draws())
    alone = torch.cat([perturb(two, model, x[i : i + 1], y[i : i + 1], draws()) for i in range(24)])
    torch.testing.assert_close(batch, alone)
    table = torch.zeros(24)
    z = x
    chosen = set()
    for _ in range(4):
        z = z.detach().requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(model(z), y, reduction="sum"), z)
        z = z.detach()
        tried = []
        for name, size in (("linf", 0.01), ("l2", 0.11)):
            norm = norm_of(name)
            moved = norm.project(z + size * norm.ascend(grad, z) - x, float(THREATS[name].eps))
            tried.append((x + moved).clamp(0, 1))
        values = torch.stack([losses(model, t, y) for t in tried])
        best = values.argmax(0)
        chosen |= set(best.tolist())
        z = torch.stack(tried)[best, torch.arange(24)]
        table = torch.maximum(table, values.amax(0))
    assert chosen == {0, 1}
    torch.testing.assert_close(losses(model, batch, y), table)
    assert (losses(model, whole, y) >= losses(model, x, y)).all()
    inside = torch.stack([norm_of(n).length(whole - x) <= float(t.eps) * (1 + 1e-4)
                          for n, t in THREATS.items()])  # fmt: skip
    assert inside.any(0).all()  # in the ball of the norm of its last step
    with pytest.raises(ValueError, match="no step size for l1"):
        make(MSD, sizes={"linf": 0.01, "l2": 0.11})


def test_sat_draws_norms_uniformly() -> None:
    x, y = images(2)
    model = network()
    sat = make(SAT)
    step = draws()
    counts = dict.fromkeys(THREATS, 0)
    for _ in range(150):
        state = step.generator.get_state()  # type: ignore[union-attr]
        x_adv = perturb(sat, model, x, y, step)
        after = step.generator.get_state()  # type: ignore[union-attr]
        for name, threat in THREATS.items():
            step.generator.set_state(state)  # type: ignore[union-attr]
            torch.randint(3, (), generator=step.generator)
            with crafting(model):
                same = torch.equal(pgd(model, x, y, threat, generator=step.generator), x_adv)
            counts[name] += int(same)
        step.generator.set_state(after)  # type: ignore[union-attr]
    assert sum(counts.values()) == 150
    assert all(30 < count < 70 for count in counts.values())


def test_eat_prefers_the_norm_with_the_lower_accuracy() -> None:
    method = recipe("e-at").build(tiny_setting())
    share = method.first_share  # type: ignore[attr-defined]
    assert share() == 0.5
    method.correct, method.seen = [30.0, 0.0], [100, 0]  # type: ignore[attr-defined]
    assert share() == 0.5  # until both norms were met
    method.correct, method.seen = [90.0, 60.0], [100, 100]  # type: ignore[attr-defined]
    assert share() == pytest.approx(0.1 / (0.1 + 0.4))
    drawn = 0
    for i in range(60):
        method.correct, method.seen = [90.0, 60.0], [100, 100]  # type: ignore[attr-defined]
        method.update(images(2, i), 0.0)
        drawn += method.seen[0] > 100  # type: ignore[attr-defined]
    assert 3 <= drawn <= 24  # 12 expected
    # counts are those of the images it trained on
    method.correct, method.seen = [0.0, 0.0], [0, 0]  # type: ignore[attr-defined]
    for i in range(6):
        method.update(images(8, i), 0.0)
    assert sum(method.seen) == 48  # type: ignore[attr-defined]
    assert all(0 <= c <= n for c, n in zip(method.correct, method.seen, strict=True))  # type: ignore[attr-defined]


def test_noise_and_rotation() -> None:
    (x, y), model = images(64), network()
    grey = torch.full_like(x, 0.5)
    noisy = perturb(make(GaussianNoise, sigma=0.1), model, grey, y, draws())
    assert float((noisy - grey).std()) == pytest.approx(0.1, rel=0.05)
    assert torch.equal(perturb(make(Rotation, degrees=0), model, x, y, draws()).round(decimals=4),
                       x.round(decimals=4))  # fmt: skip
    turned = perturb(make(Rotation, degrees=90), model, x, y, draws())
    assert (turned - x).abs().mean() > 0.05
    # by hand, for the angle that was drawn for the first image
    angle = torch.empty(64).uniform_(-1, 1, generator=draws().generator)[0] * math.pi / 2
    cos, sin, side = math.cos(angle), math.sin(angle), 8
    i, j = 3, 5
    v, u = (2 * i + 1) / side - 1, (2 * j + 1) / side - 1
    column = ((cos * u - sin * v + 1) * side - 1) / 2
    row = ((sin * u + cos * v + 1) * side - 1) / 2
    r, c = math.floor(row), math.floor(column)
    value = 0.0
    for a, b in ((r, c), (r, c + 1), (r + 1, c), (r + 1, c + 1)):
        if 0 <= a < side and 0 <= b < side:
            value += (1 - abs(row - a)) * (1 - abs(column - b)) * float(x[0, 0, a, b])
    assert float(turned[0, 0, i, j]) == pytest.approx(value, abs=1e-4)
