"""How methods choose their training images: the rules that implementations get wrong."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_learners import CONTEXT, images, recipe, tiny_net, tiny_setting
from torch import Tensor, nn

from baselines.augmentation import GaussianNoise, Rotation
from baselines.fast_at import FGSMRS, NFGSM
from baselines.fat import FAT, FATTRADES
from baselines.multi_norm import AVG, MAX, MSD, SAT
from baselines.score import SCORE
from baselines.trades_generated import TRADESGenerated
from benchmark.attacks import pgd
from benchmark.attacks.apgd import apgd
from benchmark.attacks.norms import norm_of
from benchmark.core.crafting import crafting
from benchmark.core.objective import Objective, Step
from benchmark.core.threat import Pixels, ThreatModel

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
    epochs = (1, 50, 51, 90, 91, 120)
    assert [round(fat.tau((e - 1) / 120)) for e in epochs] == [0, 0, 1, 1, 2, 2]  # type: ignore[attr-defined]
    # epochs 1 to 30, to 50, to 70, and to 85 of the code, each at its beginning
    epochs = (1, 30, 31, 50, 51, 70, 71, 85)
    assert [round(trades.tau((e - 1) / 85)) for e in epochs] == [0, 0, 1, 1, 2, 2, 3, 3]  # type: ignore[attr-defined]


def few_pixels(
    x: Tensor, z: Tensor, grad: Tensor, size: float, k: int, gap: float, eps: float
) -> Tensor:
    """One l_1 step of robust_union on an image, coordinate by coordinate."""
    d, here, g = ((z - x).flatten().tolist(), z.flatten().tolist(), grad.flatten().tolist())
    original, strength = x.flatten().tolist(), []
    for value, slope in zip(here, g, strict=True):
        blocked = value <= 0 or value >= 1
        blocked = blocked or (slope < 0 and value <= gap) or (slope > 0 and value >= 1 - gap)
        strength.append(0.0 if blocked else abs(slope))
    chosen = [i for i in sorted(range(len(d)), key=lambda i: -strength[i])[:k] if strength[i] > 0]
    for i in chosen:
        d[i] += size / k * math.copysign(1, g[i])
    if sum(map(abs, d)) > eps:  # shrink all by the same amount until the length is eps
        low, high = 0.0, max(map(abs, d))
        for _ in range(60):
            t = (low + high) / 2
            low, high = (t, high) if sum(max(abs(v) - t, 0) for v in d) > eps else (low, t)
        d = [math.copysign(max(abs(v) - high, 0), v) for v in d]
    moved = [min(max(a + b, 0.0), 1.0) for a, b in zip(original, d, strict=True)]
    return torch.tensor(moved, dtype=x.dtype).view_as(x)


def gradient(model: nn.Module, z: Tensor, y: Tensor) -> Tensor:
    z = z.detach().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(model(z), y, reduction="sum"), z)
    return grad


def robust_union_pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    noise: torch.Generator,
    start: Tensor,
) -> Tensor:
    """The attacks of robust_union under one norm, from ``start``, by plain loops."""
    z, eps, size = start, float(threat.eps), float(threat.step)
    for _ in range(threat.steps):
        grad = gradient(model, z, y)
        if threat.norm == "l1":
            k = int(torch.randint(5, 21, (), generator=noise))
            rows = [
                few_pixels(*row, size, k, size / 20, eps) for row in zip(x, z, grad, strict=True)
            ]
            z = torch.stack(rows)
        elif threat.norm == "l2":
            d = z - x + size * grad / grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            d = d * (eps / d.flatten(1).norm(dim=1).clamp(min=eps)).view(-1, 1, 1, 1)
            z = (x + d).clamp(0, 1)
        else:
            z = (x + (z - x + size * grad.sign()).clamp(-eps, eps)).clamp(0, 1)
    return z


def test_max_takes_the_worst_of_robust_unions_attacks() -> None:
    """Protects: attacks start at the image (l_1 with one random restart), in the order l_1, l_2,
    l_inf, and the l_1 steps stay clear of the border; by plain loops in float64."""
    (x, y), model = images(24, dtype=torch.float64), network().double()
    x[:, 0] = x[:, 0].round()  # saturated pixels, which the l_1 step leaves alone
    small = THREATS["l1"].model_copy(update={"eps": Pixels("3.2"), "step": Pixels("1.6")})
    actual = perturb(make(MAX, threats=[small, "l2", "linf"]), model, x, y, draws())
    noise, eps = draws().generator, float(small.eps)
    assert noise is not None
    each = [robust_union_pgd(model, x, y, small, noise, x)]
    start = torch.empty_like(x).uniform_(-eps, eps, generator=noise)
    start = (x + start / start.flatten(1).abs().sum(1).view(-1, 1, 1, 1)).clamp(0, 1)
    again = robust_union_pgd(model, x, y, small, noise, start)
    fooled = model(again).argmax(1) != y
    assert 0 < fooled.sum() < len(x)
    each[0] = torch.where(fooled.view(-1, 1, 1, 1), again, each[0])
    each += [robust_union_pgd(model, x, y, THREATS[n], noise, x) for n in ("l2", "linf")]
    table = torch.stack([losses(model, z, y) for z in each])
    assert len(set(table.argmax(0).tolist())) > 1
    for i, k in enumerate(table.argmax(0).tolist()):
        torch.testing.assert_close(actual[i], each[k][i], rtol=0, atol=1e-6)


def test_max_with_the_suites_pgd() -> None:
    """The named option: uniform starts and the l_1 steps of pgd-at."""
    (x, y), model = images(24), network()
    actual = perturb(make(MAX, attack="pgd"), model, x, y, draws())
    generator = draws().generator
    with crafting(model):
        each = [pgd(model, x, y, THREATS[n], generator=generator) for n in ("l1", "l2", "linf")]
    table = torch.stack([losses(model, z, y) for z in each])
    for i, k in enumerate(table.argmax(0).tolist()):
        assert torch.equal(actual[i], each[k][i])


def test_radii_of_the_authors_stand_for_themselves() -> None:
    """Protects: ``authors`` means the code's numbers in any suite; else the suite's threats count."""

    def numbers(objective: Any) -> list[tuple[str, float, float, int]]:
        return [(t.norm, float(t.eps), float(t.step), t.steps) for t in objective.threats]

    assert numbers(make(MAX, threats="authors")) == [
        ("l1", 12, 1, 50), ("l2", 0.3, 0.05, 50), ("linf", 0.03, 0.005, 40)
    ]  # fmt: skip
    sequential = recipe("avg-sequential", threats="authors")
    assert numbers(sequential)[2] == ("linf", 0.03, 0.003, 40)
    assert numbers(recipe("avg-sequential")) == [
        (n, float(THREATS[n].eps), float(THREATS[n].step), THREATS[n].steps)
        for n in ("l1", "l2", "linf")
    ]
    assert [row[:2] for row in numbers(make(MSD, threats="authors"))] == [
        ("l1", 12), ("l2", 0.3), ("linf", 0.03)
    ]  # fmt: skip
    assert numbers(make(SAT, threats="authors")) == numbers(make(AVG, threats="authors")) == [
        ("linf", 8 / 255, 1 / 255, 10), ("l2", 128 / 255, 30 / 255, 10), ("l1", 2000 / 255, 1, 20)
    ]  # fmt: skip
    e_at = recipe("e-at", threats="authors")
    assert [(n, eps, steps) for n, eps, _, steps in numbers(e_at)] == [
        ("linf", 8 / 255, 10), ("l1", 12, 10)
    ]  # fmt: skip


@pytest.mark.parametrize("gap", [None, 0.02])
def test_msd_chooses_per_example_and_keeps_the_best_iterate(gap: float | None) -> None:
    """By plain loops, image by image. Protects: l_1 steps leave out pixels within a gap of the
    border (of the step itself unless said) and saturated ones in both directions."""
    (x, y), model = images(24, dtype=torch.float64), network().double()
    x[:, 0] = x[:, 0].round()
    sizes = {"linf": 0.0117, "l2": 0.13, "l1": 0.6}
    msd = make(MSD, steps=4, sizes=sizes, gap=gap)
    actual = perturb(msd, model, x, y, draws())
    noise = draws().generator
    z, best, largest = x, x.clone(), torch.zeros(24, dtype=torch.float64)
    chosen = set()
    for _ in range(4):
        grad = gradient(model, z, y)
        k = int(torch.randint(5, 21, (), generator=noise))
        rows = [
            few_pixels(*row, 0.6, k, 0.6 / k if gap is None else gap, float(THREATS["l1"].eps))
            for row in zip(x, z, grad, strict=True)
        ]
        tried = [torch.stack(rows)]
        for name in ("l2", "linf"):
            norm = norm_of(name)
            moved = norm.project(z + sizes[name] * norm.ascend(grad, z) - x,
                                 float(THREATS[name].eps))  # fmt: skip
            tried.append((x + moved).clamp(0, 1))
        values = torch.stack([losses(model, t, y) for t in tried])
        chosen |= set(values.argmax(0).tolist())
        z = torch.stack(tried)[values.argmax(0), torch.arange(24)]
        better = values.amax(0) > largest
        best[better], largest = z[better], torch.maximum(largest, values.amax(0))
    assert chosen == {0, 1, 2}
    torch.testing.assert_close(actual, best, rtol=0, atol=1e-6)
    # images are independent of each other, but for k
    alone = torch.cat(
        [perturb(msd, model, a[None], b[None], draws()) for a, b in zip(x[:6], y[:6], strict=True)]
    )
    torch.testing.assert_close(actual[:6], alone)
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


@pytest.mark.parametrize("k", [0, 1])
def test_eat_counts_images_that_resist_every_iterate(k: int) -> None:
    """Protects the sampling of norms: an image counts as right only if it is at every iterate of the
    training attack, in eval mode."""
    threats = [THREATS["linf"], {"norm": "l1", "eps": 1, "steps": 2}]
    method: Any = recipe("e-at", threats=threats).build(tiny_setting(new_model=network))
    method.correct, method.seen = [10.0 * k, 10.0 * (1 - k)], [10, 10]  # norm k for sure
    (x, y), model = images(64), network()
    iterates: list[Tensor] = []
    hook = model.register_forward_pre_hook(lambda _, inputs: iterates.append(inputs[0].detach()))
    with crafting(model):
        apgd(model, x, y, method.recipe.threats[k])
    hook.remove()
    assert len(iterates) == 3
    right = torch.stack([model(z).argmax(1) == y for z in iterates])
    resisted = sum(bool(right[:, i].all()) for i in range(64))
    method.update((x, y), 0.0)
    assert (method.seen[k], method.correct[k]) == (74, resisted)
    assert 0 < resisted < int(right[0].sum())


@pytest.mark.parametrize(
    ("cls", "climbed"),
    [
        (SCORE, lambda p, q: ((q - p) ** 2).sum()),
        (TRADESGenerated, lambda p, q: -(p * q.log()).sum()),
    ],
)
def test_a_distance_from_the_clean_prediction_is_climbed_by_the_statistics_of_the_batch(
    cls: Any, climbed: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """From a uniform start, by plain steps; the clean prediction too is by the batch's statistics,
    and the running averages stay. Start and mode are not those of ``trades`` itself."""
    (x, y), model = images(12, dtype=torch.float64), network().double()
    before = model.norm.running_mean.clone()  # type: ignore[union-attr, operator]
    objective = make(cls)
    assert objective.batchnorm == "batch"
    with crafting(model, "batch"):
        actual = objective.perturb(model, x, y, draws())
    assert torch.equal(model.norm.running_mean, before)  # type: ignore[union-attr, arg-type]
    other = copy.deepcopy(model).train()
    p = other(x).softmax(1).detach()
    size = float(THREATS["linf"].step)
    z = (x + torch.empty_like(x).uniform_(-EPS, EPS, generator=draws().generator)).clamp(0, 1)
    for _ in range(THREATS["linf"].steps):
        z.requires_grad_()
        (grad,) = torch.autograd.grad(climbed(p, other(z).softmax(1)), z)
        z = (z.detach() + size * grad.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
    torch.testing.assert_close(actual, z)


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
