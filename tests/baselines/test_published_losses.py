"""One step of every method against its published loss, written here from the formula.

Plain SGD with rate 1 moves the weights by the gradient, so a step shows loss and gradient at once.
Everything in float64, relative error below 1e-6.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_learners import CONTEXT, images, relative_error, tiny_net, tiny_setting
from torch import Tensor, nn

from baselines.ar_at import _Companion
from benchmark.attacks import pgd
from benchmark.attacks.apgd import apgd
from benchmark.attacks.norms import norm_of
from benchmark.core.crafting import crafting
from benchmark.core.errors import ConfigError
from benchmark.core.method import Method, make_recipe
from benchmark.core.objective import METHODS, Step, is_objective
from benchmark.core.threat import ThreatModel
from benchmark.models.config import ModelConfig
from benchmark.models.wide_resnet import WideResNet
from benchmark.models.zoo import build_model

F64 = torch.float64
THREATS = {name: ThreatModel.model_validate(t) for name, t in CONTEXT["threats"].items()}
X, Y = images(12, dtype=F64)


def net(factor: float = 4.0) -> nn.Module:
    """Probabilities away from 1/3, and some images misclassified."""
    model = tiny_net(dtype=F64)
    with torch.no_grad():
        model.head.weight.mul_(factor)
    return model


def build(name: str, **hyper: Any) -> Method:
    plain = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    context = {**CONTEXT, "learner": {"optimizer": plain, "schedule": 1}}
    return make_recipe({"name": name, **hyper}, context).build(tiny_setting(new_model=net))


def generator() -> torch.Generator:
    """That of ``tiny_setting``, from its start."""
    return torch.Generator().manual_seed(0)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def gradient(loss: Tensor, model: nn.Module) -> Tensor:
    found = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    return torch.cat([g.flatten() for g in found])


def check(method: Method, expected: dict[str, tuple[Tensor, Tensor]], progress: float = 0) -> None:
    """``expected``: loss and gradient of each learner of the untouched ``method``."""
    before = {name: weights(learner.model) for name, learner in method.learners.items()}
    losses = method.update((X, Y), progress)
    assert expected.keys() == before.keys()
    for name, (loss, grad) in expected.items():
        assert relative_error(losses[f"loss/{name}"], loss) < 1e-6, name
        moved = before[name] - weights(method.learners[name].model)
        assert relative_error(moved, grad) < 1e-6, name


# --- formulas, example by example where the source says so ----------------------------------------


def softmax(z: Tensor) -> Tensor:
    return torch.exp(z) / torch.exp(z).sum(1, keepdim=True)


def ce(z: Tensor, y: Tensor = Y) -> Tensor:
    return -sum(torch.log(softmax(z)[i, y[i]]) for i in range(len(y))) / len(y)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Per example: sum_k p_k log(p_k / q_k)."""
    return (p * (torch.log(p) - torch.log(q))).sum(1)


def trades(f: nn.Module, x: Tensor, x_adv: Tensor, beta: float) -> Tensor:
    clean = f(x)
    return ce(clean) + beta * kl(softmax(clean), softmax(f(x_adv))).sum() / len(x)


def smoothed_trades(f: nn.Module, x: Tensor, x_adv: Tensor) -> Tensor:
    """beta 5; nine tenths on the label and a tenth over all three classes, the label among them."""
    total = trades(f, x, x_adv, 5) - ce(f(x))
    for i in range(len(x)):
        log = torch.log(softmax(f(x))[i])
        total = total - (0.9 * log[Y[i]] + 0.1 * (log[0] + log[1] + log[2]) / 3) / len(x)
    return total


def mart(f: nn.Module, x: Tensor, x_adv: Tensor, beta: float) -> Tensor:
    p, q = softmax(f(x)), softmax(f(x_adv))
    total = x.new_zeros(())
    for i in range(len(x)):
        wrong = max(q[i, k].item() for k in range(3) if k != Y[i])
        (index,) = (k for k in range(3) if k != Y[i] and q[i, k].item() == wrong)
        total = total - torch.log(q[i, Y[i]]) - torch.log(1.0001 - q[i, index] + 1e-12)
        divergence = sum(
            p[i, k] * (torch.log(p[i, k]) - torch.log(q[i, k] + 1e-12)) for k in range(3)
        )
        total = total + beta * divergence * (1.0000001 - p[i, Y[i]])
    return total / len(x)


def mixup(f: nn.Module, x: Tensor, draws: torch.Generator) -> Tensor:
    share = torch.empty((), dtype=F64).uniform_(generator=draws)
    other = torch.randperm(len(x), generator=draws)
    z = f(share * x + (1 - share) * x[other])
    return share * ce(z) + (1 - share) * ce(z, Y[other])


def cutmix(f: nn.Module, x: Tensor, draws: torch.Generator) -> Tensor:
    """The box by loops: sides sqrt(1 - l) of the image's, cut off at the border; no box in half of
    the batches."""
    mixes = float(torch.empty((), dtype=F64).uniform_(generator=draws)) < 0.5
    share, row, column = (torch.empty((), dtype=F64).uniform_(generator=draws) for _ in range(3))
    other = torch.randperm(len(x), generator=draws)
    size = x.shape[2]
    cut = int(size * math.sqrt(1 - float(share))) // 2
    cy, cx = int(float(row) * size), int(float(column) * size)
    mixed, pixels = x.clone(), 0
    for i in range(max(cy - cut, 0), min(cy + cut, size)):
        for j in range(max(cx - cut, 0), min(cx + cut, size)):
            mixed[:, :, i, j] = x[other][:, :, i, j]
            pixels += 1
    if not mixes:
        return ce(f(x))
    left = 1 - pixels / size**2
    z = f(mixed)
    return left * ce(z) + (1 - left) * ce(z, Y[other])


def score(f: nn.Module, x: Tensor, x_adv: Tensor, beta: float) -> Tensor:
    """Squared distances of probabilities, image by image."""
    p, q, total = softmax(f(x)), softmax(f(x_adv)), x.new_zeros(())
    for i in range(len(x)):
        for k in range(3):
            total = total + (p[i, k] - float(k == Y[i])) ** 2 + beta * (q[i, k] - p[i, k]) ** 2
    return total / len(x)


Formula = Callable[[nn.Module, Tensor, torch.Generator], Tensor]
OBJECTIVES: dict[str, Formula] = {
    "natural": lambda f, x_adv, draws: ce(f(X)),
    "pgd-at": lambda f, x_adv, draws: ce(f(x_adv)),
    "trades": lambda f, x_adv, draws: trades(f, X, x_adv, 6),
    "trades-generated": lambda f, x_adv, draws: smoothed_trades(f, X, x_adv),
    "joint": lambda f, x_adv, draws: (ce(f(X)) + ce(f(x_adv))) / 2,
    "rst-without-extra-data": lambda f, x_adv, draws: trades(f, X, x_adv, 6),
    "mart": lambda f, x_adv, draws: mart(f, X, x_adv, 5),
    "score": lambda f, x_adv, draws: score(f, X, x_adv, 4),
    "fgsm-rs": lambda f, x_adv, draws: ce(f(x_adv)),
    "n-fgsm": lambda f, x_adv, draws: ce(f(x_adv)),
    "fat": lambda f, x_adv, draws: ce(f(x_adv)),
    "fat-trades": lambda f, x_adv, draws: trades(f, X, x_adv, 6),
    "iat": lambda f, x_adv, draws: (mixup(f, X, draws) + mixup(f, x_adv, draws)) / 2,
    "max": lambda f, x_adv, draws: ce(f(x_adv)),
    "msd": lambda f, x_adv, draws: ce(f(x_adv)),
    "sat": lambda f, x_adv, draws: ce(f(x_adv)),
    "avg": lambda f, x_adv, draws: sum(ce(f(x_adv[12 * k : 12 * k + 12])) for k in range(3)) / 3,
    "mixup": lambda f, x_adv, draws: mixup(f, X, draws),
    "cutmix": lambda f, x_adv, draws: cutmix(f, X, draws),
    "gaussian-noise": lambda f, x_adv, draws: ce(f(x_adv)),
    "rotation": lambda f, x_adv, draws: ce(f(x_adv)),
}


def test_every_objective_has_its_formula_here() -> None:
    """A new objective must bring its published loss; AWP is below."""
    known = {name for name in METHODS.names() if is_objective(METHODS.get(name))}
    assert known == {*OBJECTIVES, "awp"}


def crafted(method: Method, progress: float = 0) -> tuple[Tensor, torch.Generator]:
    """The images that the only learner's next step will train on, and the draws after that."""
    (learner,) = method.learners.values()
    draws = generator()
    with crafting(copy.deepcopy(learner.model), learner.objective.batchnorm) as model:
        return learner.objective.perturb(model, X, Y, Step(progress, draws)), draws


@pytest.mark.parametrize("progress", [0.0, 0.8])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective(name: str, progress: float) -> None:
    method = build(name)
    x_adv, draws = crafted(method, progress)
    f = copy.deepcopy(next(iter(method.learners.values())).model).train()
    loss = OBJECTIVES[name](f, x_adv, draws)
    check(method, {name: (loss, gradient(loss, f))}, progress)


@pytest.mark.parametrize("inner", ["pgd-at", "trades", "mart"])
def test_awp(inner: str) -> None:
    """v = gamma ||w|| g / ||g|| for each weight tensor; gradient at w + v; BatchNorm of one pass."""
    gamma = 0.3
    method = build("awp", objective=inner, gamma=gamma)
    x_adv, draws = crafted(method)
    f = copy.deepcopy(method.learners["awp"].model).train()
    worst = copy.deepcopy(f)
    first = OBJECTIVES[inner](f, x_adv, draws)
    for (name, w), (_, v), g in zip(
        f.named_parameters(),
        worst.named_parameters(),
        torch.autograd.grad(first, list(f.parameters())),
        strict=True,
    ):
        if name in ("conv.weight", "head.weight"):
            v.data += gamma * w.data.pow(2).sum().sqrt() * g / g.pow(2).sum().sqrt()
    loss = OBJECTIVES[inner](worst, x_adv, draws)
    check(method, {"awp": (loss, gradient(loss, worst))})
    # BatchNorm statistics are those of the second pass alone
    norm = method.learners["awp"].model.get_submodule("norm")
    torch.testing.assert_close(norm.running_mean, worst.norm.running_mean)


def test_awp_restores_the_weights_exactly() -> None:
    """With a rate of 0 the step is undone bit by bit; during the warm-up nothing moves at all."""
    method = build("awp", gamma=0.1)
    learner = method.learners["awp"]
    learner.optimizer.param_groups[0]["lr"] = 0.0
    before = weights(learner.model)
    object.__setattr__(learner.config.schedule, "points", ((0.0, 0.0),))
    seen = []
    learner.model.register_forward_hook(lambda *_: seen.append(weights(learner.model)))
    method.update((X, Y), 0.5)
    assert torch.equal(weights(learner.model), before)
    assert not torch.equal(seen[-1], before)

    warm = build("awp", gamma=0.1, warmup=0.5)
    plain = build("pgd-at")
    for method in (warm, plain):
        method.update((X, Y), 0.4)
    assert torch.equal(weights(warm.learners["awp"].model), weights(plain.learners["pgd-at"].model))


def test_avg_sequential_takes_a_step_for_each_norm() -> None:
    """Protects the source's order, l_1, l_2, l_inf: the last step wins. Each step trains on the
    attack of ``max`` for that norm, crafted on the weights that the last step left."""
    method = build("avg-sequential", batchnorm="eval")
    f, draws = copy.deepcopy(method.learners["avg"].model).train(), generator()
    before, losses = weights(f), []
    for name in ("l1", "l2", "linf"):
        alone = make_recipe({"name": "max", "threats": [name]}, CONTEXT).learner.objective
        with crafting(f):
            x_adv = alone.perturb(f, X, Y, Step(0.0, draws))
        loss = ce(f(x_adv))
        losses.append(loss)
        for p, g in zip(
            f.parameters(), torch.autograd.grad(loss, list(f.parameters())), strict=True
        ):
            p.data -= g
    check(method, {"avg": (sum(losses) / 3, before - weights(f))})


def test_hat() -> None:
    """CE + 2.5 KL + 0.5 CE(f(x + 2 (x' - x)), argmax of the natural network at x')."""
    method = build("hat")
    helper, f = (copy.deepcopy(method.learners[n].model).train() for n in ("helper", "robust"))
    with crafting(f):
        x_adv = pgd(f, X, Y, THREATS["linf"], loss="kl", start="gaussian", generator=generator())
    natural = ce(helper(X))
    grad = gradient(natural, helper)
    with torch.no_grad():  # the helper has stepped before it is asked
        start = 0
        for p in helper.parameters():
            p -= grad[start : start + p.numel()].view_as(p)
            start += p.numel()
        labels = helper.eval()(x_adv).argmax(1)
    loss = trades(f, X, x_adv, 2.5) + 0.5 * ce(f(X + 2 * (x_adv - X)), labels)
    check(method, {"helper": (natural, grad), "robust": (loss, gradient(loss, f))})


@pytest.mark.parametrize("beta", [0.0, 6.0])
def test_lbgat(beta: float) -> None:
    """MSE(f(x'), g(x)) + CE(g(x), y) + beta KL, both networks moved by the one loss."""
    method = build("lbgat", beta=beta)
    g, f = (copy.deepcopy(method.learners[n].model).train() for n in ("natural", "robust"))
    with crafting(f):
        x_adv = pgd(f, X, Y, THREATS["linf"], loss="kl", start="gaussian", generator=generator())
    z_adv, z, guide = f(x_adv), f(X), g(X)
    natural = ce(guide)
    robust = ((z_adv - guide) ** 2).sum() / (12 * 3)
    robust = robust + beta * kl(softmax(z), softmax(z_adv)).mean()
    total = natural + robust
    check(
        method, {"natural": (natural, gradient(total, g)), "robust": (robust, gradient(total, f))}
    )


def test_score_with_clipping() -> None:
    """The form without generated data: what a prediction with 0.3 on the wrong classes costs is
    taken off each image's loss, and no loss is below 0."""
    method = build("score", beta=6, clip=0.3, start="gaussian", batchnorm="eval")
    x_adv, _ = crafted(method)
    f = copy.deepcopy(method.learners["score"].model).train()
    p, q = softmax(f(X)), softmax(f(x_adv))
    free = 0.3**2 + 2 * 0.15**2  # 1 - 0.7 on the right class, 0.15 on each of the two others
    total, clipped = X.new_zeros(()), 0
    for i in range(12):
        right = torch.eye(3, dtype=F64)[Y[i]]
        lost = ((p[i] - right) ** 2).sum() + 6 * ((q[i] - p[i]) ** 2).sum() - free
        clipped += int(lost < 0)
        total = total + (lost if lost > 0 else 0)
    assert 0 < clipped < 12
    check(method, {"score": (total / 12, gradient(total / 12, f))})


def ikl(z: Tensor, z_adv: Tensor, weights: Tensor) -> Tensor:
    """CE(z) + 4 soft cross-entropy + 20 / 4 weighted squared differences of differences."""
    total = ce(z)
    for i in range(len(z)):
        q = torch.log(softmax(z_adv)[i])
        total = total - 4 * (softmax(z)[i].detach() * q).sum() / len(z)
        for j in range(3):
            for k in range(3):
                d = (z[i, j] - z[i, k]) - (z_adv[i, j] - z_adv[i, k])
                total = total + 5 * weights[Y[i], j] * weights[Y[i], k] * d**2 / len(z)
    return total


@pytest.mark.parametrize("epoch", [0, 1])
def test_ikl(epoch: int) -> None:
    """Weights of the first epoch are 1 / 3; then mean softmax(z / 4) by class over the epoch before,
    in train mode. The radius is (epoch + 1) / epochs of the whole. A class that was not seen keeps
    its row."""
    method = build("ikl")
    x_before, y_before = images(8, 1, F64)
    y_before = y_before.clamp_max(1)
    sums = torch.zeros(3, 3, dtype=F64)
    for _ in range(2 * epoch):  # an epoch has two steps, and there are four
        f = copy.deepcopy(method.learners["ikl"].model).train()
        p = softmax(f(x_before) / 4).detach()
        for i in range(8):
            sums[y_before[i]] += p[i]
        method.update((x_before, y_before), 0)
    f = copy.deepcopy(method.learners["ikl"].model).train()
    weights = torch.full((3, 3), 1 / 3, dtype=F64)
    if epoch:
        counts = torch.bincount(y_before, minlength=3).double()[:, None] * 2
        weights[:2] = (sums / counts)[:2]
    share = (epoch + 1) / 4
    full = THREATS["linf"]
    now = full.model_copy(update={"eps": full.eps * share, "step": full.step * share})
    draws = generator() if not epoch else method._setting.generator  # type: ignore[attr-defined]
    state = draws.get_state()
    with crafting(f):
        x_adv = pgd(f, X, Y, now, loss="kl", start="gaussian", generator=draws)
    draws.set_state(state)
    loss = ikl(f(X), f(x_adv), weights)
    check(method, {"ikl": (loss, gradient(loss, f))})


def test_ikl_with_awp() -> None:
    """The code's AWP is the learner's: the same loss at displaced weights, at twice the cost."""
    objective = {"name": "awp", "objective": "natural", "gamma": 0.2}
    method = build("ikl", learner={"name": "ikl", "objective": objective})
    f = copy.deepcopy(method.learners["ikl"].model).train()
    worst = copy.deepcopy(f)
    full = THREATS["linf"]
    now = full.model_copy(update={"eps": full.eps / 4, "step": full.step / 4})
    with crafting(f):
        x_adv = pgd(f, X, Y, now, loss="kl", start="gaussian", generator=generator())
    weights = torch.full((3, 3), 1 / 3, dtype=F64)
    first = ikl(f(X), f(x_adv), weights)
    for (name, w), (_, v), g in zip(
        f.named_parameters(),
        worst.named_parameters(),
        torch.autograd.grad(first, list(f.parameters())),
        strict=True,
    ):
        if name in ("conv.weight", "head.weight"):
            v.data += 0.2 * w.data.norm() * g / g.norm()
    loss = ikl(worst(X), worst(x_adv), weights)
    assert method.passes == 2 + 4
    check(method, {"ikl": (loss, gradient(loss, worst))})


@pytest.mark.parametrize("name", ["rebat", "rebat-plus-plus"])
def test_rebat(name: str) -> None:
    """From step 4 of 8: CE + 2 KL(average : network) at x', the average (decay 0.9) as the last step
    left it and in eval mode. ++: from step 3, a radius and a number of steps of its own."""
    strong = {"stronger_since": "37.5%", "further_steps": 3} if name != "rebat" else {}
    method = build(name, beta=2, decay=0.9, since="50%", **strong)
    (learner,) = method.learners.values()
    average = copy.deepcopy(learner.model).eval()
    stronger = THREATS["linf"].model_copy(
        update={"eps": THREATS["linf"].eps * 1.25, "steps": THREATS["linf"].steps + 3}
    )
    draws = generator()
    for step in range(6):
        averages = step >= 4
        assert (method.deployed() is learner.model) is (step < 5)
        if step == 4:
            average.load_state_dict(learner.model.state_dict())
        f = copy.deepcopy(learner.model).train()
        threat = stronger if strong and step >= 3 else THREATS["linf"]
        with crafting(f, "train"):  # the running statistics follow the attack
            x_adv = pgd(f, X, Y, threat, generator=draws)
        logits = f(x_adv)
        loss = ce(logits)
        if averages:
            loss = loss + 2 * kl(softmax(average(x_adv)).detach(), softmax(logits)).mean()
        check(method, {name: (loss, gradient(loss, f))}, step / 8)
        passes = threat.steps + 1
        assert method.passes_at(step) == passes
        if averages:
            with torch.no_grad():
                for mine, theirs in zip(
                    average.state_dict().values(), learner.model.state_dict().values(), strict=True
                ):
                    if mine.is_floating_point():
                        mine.copy_(0.9 * mine + 0.1 * theirs)
    for key, value in method.deployed().state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, average.state_dict()[key], msg=key)
    assert method.passes == sum(method.passes_at(step) for step in range(8)) / 8


def ar_at(
    f: nn.Module, companion: nn.Module, x_adv: Tensor, a: float
) -> tuple[Tensor, Tensor, nn.Module, Tensor]:
    """Both parts of the loss by hand for the test's network: clean BatchNorm, predictor and all. Also
    the clean network, and its logits."""
    g = copy.deepcopy(f)
    g.conv, g.head, g.norm = f.conv, f.head, companion.norms[0]
    features = []
    for model, x in ((f, x_adv), (g, X)):
        here = model.conv(x)
        mean, var = here.mean((0, 2, 3)), here.var((0, 2, 3), unbiased=False)
        normed = (here - mean.view(-1, 1, 1)) / (var.view(-1, 1, 1) + 1e-5).sqrt()
        out = normed * model.norm.weight.view(-1, 1, 1) + model.norm.bias.view(-1, 1, 1)
        features.append(out.clamp_min(0).mean((2, 3)))
    first, norm, _, last = companion.predictors[0]
    hidden = features[0] @ first.weight[:, :, 0, 0].T
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    hidden = (hidden * norm.weight + norm.bias).clamp_min(0)
    predicted = hidden @ last.weight[:, :, 0, 0].T + last.bias
    target = features[1].detach()
    cosines = (predicted * target).sum(1) / (predicted.norm(dim=1) * target.norm(dim=1))
    z = g(X)
    return a * ce(f(x_adv)) + 7 * (1 - cosines.mean()), (1 - a) * ce(z), g, z


def test_ar_at() -> None:
    """a CE(x') + (1 - a) CE(x) + w (1 - cos): two sets of BatchNorm over shared convolutions, no
    gradient to the clean features; a = 1 / 3 in the first epoch, then the last one's accuracy."""
    method = build("ar-at", weight=7, hidden=0.75)
    main, clean = method.learners.values()
    draws, right = generator(), []
    draws.set_state(method._setting.generator.get_state())  # type: ignore[attr-defined]
    norms_before = copy.deepcopy(clean.model.norms[0])  # type: ignore[index]
    for step in range(4):
        f, companion = copy.deepcopy(main.model).train(), copy.deepcopy(clean.model).train()
        a = 1 / 3 if step < 2 else sum(right[:2]) / 24
        with crafting(f, "train"):
            x_adv = pgd(f, X, Y, THREATS["linf"], generator=draws)
        adversarial, natural, g, z = ar_at(f, companion, x_adv, a)
        total = adversarial + natural
        right.append(int((z.argmax(1) == Y).sum()))
        check(method, {
            "ar-at": (adversarial, gradient(total, f)),
            "clean": (natural, gradient(total, companion)),
        })  # fmt: skip
        # running statistics: those of the attack and x' on one side, of x on the other
        for mine, expected in ((main.model, f), (clean.model.norms[0], g.norm)):  # type: ignore[index]
            for name, buffer in expected.named_buffers():
                torch.testing.assert_close(mine.get_buffer(name), buffer)
    assert method.accuracy == sum(right[2:]) / 24  # type: ignore[attr-defined]
    assert 0 < sum(right[:2]) < 24
    for name, tensor in clean.model.norms[0].state_dict().items():  # type: ignore[index]
        assert not torch.equal(tensor, norms_before.state_dict()[name])


def test_ar_at_aligns_the_layers_of_its_code() -> None:
    """Those in its commands (of the wide network, there, the ReLUs after these)."""
    resnet = build_model(ModelConfig(name="resnet18"), num_classes=10, image_size=32)
    wide = WideResNet(10, blocks=5, widen=1)
    block3 = [f"block3.layer.{block}.bn{i}" for block in range(5) for i in (1, 2)]
    for model, layers, expected in (
        (resnet, 4, [f"layer4.{block}.bn{i}" for block in (0, 1) for i in (1, 2)]),
        (wide, 11, [*block3, "bn1"]),
    ):
        recipe = make_recipe({"name": "ar-at", "layers": layers}, CONTEXT)
        assert _Companion(model, recipe, generator()).aligned == expected  # type: ignore[arg-type]
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(ConfigError, match="the model has none"):
        make_recipe({"name": "ar-at"}, CONTEXT).build(tiny_setting(new_model=lambda: plain))


def class_wise_pgd(f: nn.Module, norm: str, radii: list[float], draws: torch.Generator) -> Tensor:
    """PGD of an image within a radius of its own, image by image (the starts are drawn together)."""
    threat = THREATS[norm]
    start = norm_of(norm).random_start(X, float(threat.eps), draws)
    z = torch.stack([
        (X[i] + start[i] * radii[i] / float(threat.eps)).clamp(0, 1) for i in range(12)
    ])  # fmt: skip
    for _ in range(threat.steps):
        z.requires_grad_()
        (grad,) = torch.autograd.grad(ce(f(z)), z)
        moved = []
        for i in range(12):
            if norm == "linf":
                d = (z[i].detach() + float(threat.step) * grad[i].sign() - X[i]).clamp(
                    -radii[i], radii[i]
                )
            else:
                d = z[i].detach() + float(threat.step) * grad[i] / grad[i].norm() - X[i]
                d = d * min(1.0, radii[i] / float(d.norm()))
            moved.append((X[i] + d).clamp(0, 1))
        z = torch.stack(moved)
    return z.detach()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_cfa(norm: str) -> None:
    """Radii (0.3 + robust accuracy of the class in the last epoch) * eps from step 4 of 8, before it
    eps; accuracies from the predictions of training. (Small steps until the one that is checked.)"""
    objective = {"name": "natural", "batchnorm": "train"}
    schedule = {"points": [[0, 0.02], [0.5, 1]], "interpolation": "step"}
    own = {"name": "cfa", "objective": objective, "schedule": schedule}
    method = build("cfa", margin=0.3, begin="50%", threat=norm, learner=own)
    learner = method.learners["cfa"]
    eps, draws = float(THREATS[norm].eps), generator()
    sizes = torch.bincount(Y, minlength=3)
    shares, right = [1.0] * 12, torch.zeros(3)
    for step in range(5):
        f = copy.deepcopy(learner.model).train()
        with crafting(f, "train"):  # the running statistics follow the attack
            x_adv = class_wise_pgd(f, norm, [share * eps for share in shares], draws)
        z = f(x_adv)
        if step < 4:
            method.update((X, Y), step / 8)
        else:
            check(method, {"cfa": (ce(z), gradient(ce(z), f))}, step / 8)
        torch.testing.assert_close(
            learner.model.get_buffer("norm.running_mean"), f.get_buffer("norm.running_mean")
        )
        for i in range(12):
            right[Y[i]] += float(z[i].argmax() == Y[i])
        if step == 1:
            right.zero_()
        if step == 3:
            shares = [0.3 + float(right[c] / (2 * sizes[c])) for c in Y]
    assert len(set(shares)) > 1


def test_cfa_averages_epochs_whose_weakest_class_is_strong_enough() -> None:
    """Held-out images are attacked in eval mode; the first weights that are admitted begin the
    average, BatchNorm statistics too. (Wrong labels in epoch 7 weaken a class again.)"""

    def state(model: nn.Module) -> Tensor:
        return torch.cat([weights(model), model.norm.running_mean, model.norm.running_var])

    def weakest(model: nn.Module) -> float:
        noise, right, size = generator(), [0] * 3, [0] * 3
        for x, y in parts:
            with crafting(model):
                predicted = model(pgd(model, x, y, THREATS["linf"], generator=noise)).argmax(1)
            for i in range(len(y)):
                right[y[i]] += int(predicted[i] == y[i])
                size[y[i]] += 1
        return min(right[c] / size[c] for c in range(3))

    own = {"name": "cfa", "objective": {"name": "natural", "batchnorm": "train"}, "schedule": 0.05}
    method, average, admitted = build("cfa", threshold=0.5, decay=0.7, learner=own), None, []
    parts = [(X[:5], Y[:5]), (X[5:], Y[5:])]
    method._setting.held_out = lambda: iter(parts)  # type: ignore[attr-defined]
    learner = method.learners["cfa"]
    for epoch in range(14):
        for _ in range(2):
            method.update((X, (Y + 1) % 3 if epoch == 7 else Y), 0)
        admitted.append(weakest(copy.deepcopy(learner.model)) >= 0.5)
        if admitted[-1]:
            new = state(learner.model)
            average = new if average is None else 0.7 * average + 0.3 * new
        assert method.selectable(0) is (average is not None)
        if average is None:
            assert method.deployed() is learner.model
        else:
            torch.testing.assert_close(state(method.deployed()), average)
    assert [int(entered) for entered in admitted] == [0, 0, 0, 0, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("k", [0, 1])
def test_eat(k: int) -> None:
    """CE on APGD examples of the norm that was drawn."""
    method = build("e-at")
    method.correct, method.seen = [10.0 * k, 10.0 * (1 - k)], [10, 10]  # type: ignore[attr-defined]
    f = copy.deepcopy(method.learners["e-at"].model).train()
    with crafting(f):
        x_adv, _ = apgd(f, X, Y, THREATS["linf" if k == 0 else "l1"])
    loss = ce(f(x_adv))
    check(method, {"e-at": (loss, gradient(loss, f))})


def test_ramp() -> None:
    """CE at the worse of the two examples + 5 KL(p(x_inf) : p(x_1)) over images right at x_inf; after
    an epoch of two steps, the mixture by gradient projection of weights and BatchNorm statistics,
    tensor by tensor, for both copies."""
    slow = [
        {"name": name, "objective": "natural", "schedule": 0.05} for name in ("natural", "robust")
    ]
    threats = ["linf", {"norm": "l1", "eps": 2, "steps": 2}]
    method = build("ramp", beta=0.3, threats=threats, learners=slow)
    start = copy.deepcopy(method.learners["robust"].model)
    chosen = set()
    for _ in range(2):
        g, f = (copy.deepcopy(method.learners[n].model).train() for n in ("natural", "robust"))
        with crafting(f):
            pair = [apgd(f, X, Y, threat)[0] for threat in method.recipe.threats]  # type: ignore[attr-defined]
            losses = [F.cross_entropy(f(z), Y, reduction="none") for z in pair]
        rows = [int(losses[1][i] >= losses[0][i]) for i in range(12)]
        chosen |= set(rows)
        worst = torch.stack([pair[rows[i]][i] for i in range(12)])
        z_1, z_inf, z = f(pair[1]), f(pair[0]), f(worst)
        right = [i for i in range(12) if z_inf[i].argmax() == Y[i]]
        assert 0 < len(right) < 12
        paired = sum(kl(softmax(z_inf)[i : i + 1], softmax(z_1)[i : i + 1]).sum() for i in right)
        robust, natural = ce(z) + 5 * paired / len(right), ce(g(X))
        grads = {"natural": gradient(natural, g), "robust": gradient(robust, f)}
        found = method.update((X, Y), 0.0)
        assert relative_error(found["loss/natural"], natural) < 1e-6
        assert relative_error(found["loss/robust"], robust) < 1e-6
        for model, grad in ((g, grads["natural"]), (f, grads["robust"])):
            at = 0
            for p in model.parameters():
                p.data -= 0.05 * grad[at : at + p.numel()].view_as(p)
                at += p.numel()
        if method.steps == 1:  # type: ignore[attr-defined]
            for name, model in (("natural", g), ("robust", f)):
                moved = weights(method.learners[name].model)
                torch.testing.assert_close(moved, weights(model))
    assert chosen == {0, 1}
    for key, old in start.state_dict().items():
        n, r = g.state_dict()[key], f.state_dict()[key]
        if old.dim():
            a, b = (n - old).flatten(), (r - old).flatten()
            cosine = float(a @ b / (a.norm() * b.norm()))
            expected = old + 0.3 * max(cosine, 0) * (n - old) + 0.7 * (r - old)
        else:
            expected = r  # the count of batches
        for learner in method.learners.values():
            torch.testing.assert_close(learner.model.state_dict()[key], expected, msg=key)


def members(method: Method) -> list[nn.Module]:
    return [copy.deepcopy(learner.model).train() for learner in method.learners.values()]


def mean_probability(models: list[nn.Module], x: Tensor) -> Tensor:
    return sum(softmax(model(x)) for model in models) / len(models)


def on_the_ensemble(models: list[nn.Module]) -> Tensor:
    """PGD under l_inf that climbs -log of the averaged probability, models as they are."""
    threat = THREATS["linf"]
    draws, eps, step = generator(), float(threat.eps), float(threat.step)
    x_adv = (X + torch.empty_like(X).uniform_(-eps, eps, generator=draws)).clamp(0, 1)
    for _ in range(threat.steps):
        x_adv.requires_grad_()
        loss = -torch.log(mean_probability(models, x_adv)[range(12), Y]).sum()
        (grad,) = torch.autograd.grad(loss, x_adv)
        x_adv = (x_adv.detach() + step * grad.sign()).clamp(X - eps, X + eps).clamp(0, 1)
    return x_adv


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_joint_ensemble(mode: str) -> None:
    """Every member on one x', crafted in the source's train mode unless said; the running statistics
    of BatchNorm follow."""
    method = build("joint-ensemble", **({} if mode == "train" else {"batchnorm": mode}))
    models = members(method)
    for model in models:
        model.train(mode == "train")
    x_adv = on_the_ensemble(models)
    expected = {}
    for name, model in zip(method.learners, models, strict=True):
        loss = ce(model.train()(x_adv))
        expected[name] = (loss, gradient(loss, model))
    check(method, expected)
    for model, learner in zip(models, method.learners.values(), strict=True):
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(learner.model.get_buffer(name), buffer)


def adp(logits: list[Tensor]) -> Tensor:
    """sum CE - 2 H(mean p) - 0.5 log det of the Gram matrix of normalised non-true probabilities."""
    p = [softmax(z) for z in logits]
    total = X.new_zeros(())
    for i in range(12):
        mean = (p[0][i] + p[1][i]) / 2
        rows = [torch.stack([q[i, k] for k in range(3) if k != Y[i]]) for q in p]
        rows = [row / row.pow(2).sum().sqrt() for row in rows]
        gram = torch.stack([torch.stack([a @ b for b in rows]) for a in rows]) + 1e-6 * torch.eye(2)
        det = gram[0, 0] * gram[1, 1] - gram[0, 1] * gram[1, 0]
        total = total - 2 * (-(mean * torch.log(mean)).sum()) - 0.5 * torch.log(det)
    return sum(ce(z) for z in logits) + total / 12


@pytest.mark.parametrize("adversarial", [None, "cross-entropy", "adp", "alone"])
def test_adp(adversarial: str | None) -> None:
    """Protects what a threat adds: the members' cross-entropies (DVERGE, the default), ADP's loss
    (its own code), or ADP on adversarial images alone; crafted in train mode."""
    given = {} if adversarial is None else {"threat": "linf"}
    if adversarial in ("adp", "alone"):
        given["adversarial"] = adversarial
    method = build("adp", members=2, **given)
    models = members(method)
    x_adv = on_the_ensemble(models) if adversarial else X
    loss = X.new_zeros(()) if adversarial == "alone" else adp([model(X) for model in models])
    if adversarial == "cross-entropy":
        loss = loss + sum(ce(model(x_adv)) for model in models)
    elif adversarial:
        loss = loss + adp([model(x_adv) for model in models])
    check(method, {
        name: (loss / 2, gradient(loss, model))
        for name, model in zip(method.learners, models, strict=True)
    })  # fmt: skip


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_cutmix_mixes_that_share_of_the_batches(probability: float) -> None:
    """Protects the 0.5 of the CIFAR recipe: a batch that is not mixed is trained on as it is."""
    objective = make_recipe(
        {"name": "cutmix", "probability": probability}, CONTEXT
    ).learner.objective
    seen: list[Tensor] = []
    model = net().train()
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    draws = generator()
    for _ in range(200):
        objective.loss(model, X, X, Y, Step(0.0, draws))
    mixed = sum(not torch.equal(z, X) for z in seen)
    # a box of no pixels also leaves the batch as it is, in about a tenth of the draws
    low, high = {0.0: (0, 0), 0.5: (70, 110), 1.0: (160, 200)}[probability]
    assert low <= mixed <= high


def test_seed_ensemble_averages_networks_of_other_initial_weights() -> None:
    method = build("seed-ensemble", learner={"name": "member", "objective": "natural"})
    models = members(method)
    flat = [weights(model) for model in models]
    assert len(flat) == 3
    assert not any(torch.equal(flat[i], flat[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    expected = {}
    for name, model in zip(method.learners, models, strict=True):
        loss = ce(model(X))
        expected[name] = (loss, gradient(loss, model))
    check(method, expected)
    deployed = method.deployed().eval()
    trained = [learner.model.eval() for learner in method.learners.values()]
    torch.testing.assert_close(softmax(deployed(X)), mean_probability(trained, X))


def test_distillation() -> None:
    """sum_k gamma_k KL(p_k(x_k) : p_g(x_k)) after the base learners' own steps."""
    method = build("generalist-distill", mixing={"linf": 0.3})
    bases = {n: copy.deepcopy(method.learners[n].model).train() for n in ("natural", "linf")}
    student = copy.deepcopy(method.learners["global"].model).train()
    with crafting(bases["linf"]):
        x_adv = pgd(bases["linf"], X, Y, THREATS["linf"], generator=generator())
    expected, total = {}, X.new_zeros(())
    for (name, model), x, share in zip(bases.items(), (X, x_adv), (0.7, 0.3), strict=True):
        loss = ce(model(x))
        grad = gradient(loss, model)
        expected[name] = (loss, grad)
        with torch.no_grad():
            start = 0
            for p in model.parameters():
                p -= grad[start : start + p.numel()].view_as(p)
                start += p.numel()
            target = softmax(model.eval()(x))
        total = total + share * kl(target, softmax(student(x))).mean()
    expected["global"] = (total, gradient(total, student))
    check(method, expected)


def test_ema_follows_its_closed_form() -> None:
    """decay min(0.9, (s+1)/(s+10)); the learner itself trains as if alone."""
    averaged, alone = build("ema", objective="trades", decay=0.9), build("trades")
    average = weights(averaged.deployed())
    for step in range(4):
        for method in (averaged, alone):
            method.update(images(8, step, F64), step / 4)
        decay = min(0.9, (step + 1) / (step + 10))
        average = decay * average + (1 - decay) * weights(alone.deployed())
    assert relative_error(weights(averaged.deployed()), average) < 1e-12


def test_swa_is_the_mean_of_epoch_ends_with_fresh_statistics() -> None:
    """From 50 % of 8 steps in epochs of 2: the weights after steps 4, 6 and 8."""
    method = build("swa", objective="natural", since="50%")
    (learner,) = method.learners.values()
    kept = []
    for step in range(8):
        method.update(images(8, step, F64), step / 8)
        if step + 1 < 4:
            assert method.deployed() is learner.model
        if step + 1 in (4, 6, 8):
            kept.append(weights(learner.model))
    deployed = method.deployed()
    assert relative_error(weights(deployed), sum(kept) / 3) < 1e-12
    fresh = copy.deepcopy(deployed)
    x = torch.cat([images(8, seed, F64)[0] for seed in (7, 8)])  # the calibration images
    batch = [fresh.conv(part).transpose(0, 1).flatten(1) for part in x.chunk(2)]
    mean = sum(part.mean(1) for part in batch) / 2
    variance = sum(part.var(1) for part in batch) / 2
    assert relative_error(deployed.get_buffer("norm.running_mean"), mean) < 1e-9
    assert relative_error(deployed.get_buffer("norm.running_var"), variance) < 1e-9
