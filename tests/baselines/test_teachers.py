"""Methods that learn from trained networks or are made of them, against plain computations."""

from __future__ import annotations

import copy
import math
from itertools import product

import pytest
import torch
from test_published_losses import (
    F64,
    THREATS,
    X,
    Y,
    build,
    ce,
    check,
    generator,
    gradient,
    kl,
    net,
    softmax,
    weights,
)
from tiny_learners import images, load_teacher, relative_error
from torch import Tensor, nn

from baselines.mixednuts import Mixed, MixedNUTS, MixtureNumbers, chosen
from benchmark.attacks import pgd
from benchmark.attacks.folding import FoldedView
from benchmark.core.crafting import crafting
from benchmark.core.weights import Weights
from benchmark.models.config import ModelConfig
from benchmark.models.standalone import standalone_source
from benchmark.models.zoo import build_model


def teacher(method: str) -> nn.Module:
    """The network that ``tiny_setting`` loads for that row."""
    model = net()
    load_teacher(model, Weights(method=method))
    return model.eval()


def test_kd_swa() -> None:
    """0.3 CE + 0.1 KD(natural) + 0.6 KD(robust) on x' crafted in train mode; KD at temperature 2 is
    cross-entropy between softened probabilities, times 4."""
    method = build("kd-swa")
    f = copy.deepcopy(method.learners["learner"].model).train()
    with crafting(f, "train"):
        x_adv = pgd(f, X, Y, THREATS["linf"], generator=generator())
    z = f(x_adv)
    loss = 0.3 * ce(z)
    for share, name in ((0.1, "natural"), (0.6, "pgd-at")):
        target = softmax(teacher(name)(x_adv).detach() / 2)
        for i in range(12):
            soft = -sum(target[i, k] * torch.log(softmax(z / 2)[i, k]) for k in range(3))
            loss = loss + share * 4 * soft / 12
    check(method, {"learner": (loss, gradient(loss, f))})


def test_kd_swa_deploys_the_average_of_epoch_ends() -> None:
    """Of 8 steps in epochs of 2, from 50 % on: the weights after steps 4, 6 and 8."""
    method, kept = build("kd-swa", since="50%"), []
    for step in range(8):
        method.update(images(8, step, F64), step / 8)
        if step + 1 in (4, 6, 8):
            kept.append(weights(method.learners["learner"].model))
    assert relative_error(weights(method.deployed()), sum(kept) / 3) < 1e-12


def test_mtard() -> None:
    """Two steps: the weight follows the losses relative to those of the first batch, at a rate that
    falls with the learning rate; divergences are means over images and classes."""
    learner = {"name": "mtard", "objective": "natural", "schedule": 0.5}
    method = build("mtard", rate=0.6, learner=learner)
    weight, first = 0.5, None
    for step in range(2):
        x, y = images(12, seed=20 + step, dtype=F64)
        draws = generator()
        f = copy.deepcopy(method.learners["mtard"].model).train()
        method._setting.generator = copy.deepcopy(draws)  # type: ignore[attr-defined]
        with crafting(f):
            x_adv = pgd(f, x, y, THREATS["linf"], start="gaussian", generator=draws)
        robust, natural = (
            sum(
                p * (torch.log(p + 1e-5) - torch.log(q))
                for p, q in zip(
                    softmax(teacher(name)(z).detach()).flatten(),
                    softmax(f(z)).flatten(),
                    strict=True,
                )
            )
            / 36
            for name, z in (("pgd-at", x_adv), ("natural", x))
        )
        first = first or (robust.item(), natural.item())
        behind = robust.item() / first[0], natural.item() / first[1]
        weight = weight - 0.3 * (weight - behind[1] / (behind[0] + behind[1]))
        loss = (1 - weight) * robust + weight * natural
        expected, before = gradient(loss, f), weights(f)
        found = method.update((x, y), 0.0)
        assert relative_error(found["loss/mtard"], loss) < 1e-6
        moved = before - weights(method.learners["mtard"].model)
        assert relative_error(moved, 0.5 * expected) < 1e-6
        assert method.diagnostics(0)["weight/natural"] == pytest.approx(weight, abs=1e-12)
    assert abs(weight - 0.5) > 0.01


def transformed(z: Tensor, s: float, p: float, c: float) -> Tensor:
    """s sgn(u) |u|^p with u = GELU(LN(z) + c), number by number."""
    rows = []
    for row in z:
        mean = sum(row) / len(row)
        deviation = torch.sqrt(sum((v - mean) ** 2 for v in row) / (len(row) - 1) + 1e-8)
        u = [(v - mean) / deviation + c for v in row]
        u = [v * (1 + torch.erf(v / math.sqrt(2))) / 2 for v in u]
        rows.append(torch.stack([s * torch.sign(v) * torch.abs(v) ** p for v in u]))
    return torch.stack(rows)


MIXTURE = MixtureNumbers(scale=2.0, power=1.5, bias=-0.3, alpha=0.8, plain_alpha=0.6)


def mixed() -> tuple[Mixed, nn.Module, nn.Module]:
    method = build("mixednuts", mixture=MIXTURE)
    network = method.deployed()
    assert isinstance(network, Mixed)
    return network, teacher("natural"), teacher("pgd-at")


def test_mixednuts_is_its_formula() -> None:
    """log[0.2 onehot(argmax n) + 0.8 softmax(M(r))]; the gradient is that of log[0.4 softmax(n) + 0.6
    (0.9 softmax(r) + 0.1 softmax(M(r)))]."""
    network, n, r = mixed()
    x = X.clone().requires_grad_()
    found = network(x)
    hard = torch.eye(3, dtype=F64)[n(X).argmax(1)]
    mapped = softmax(transformed(r(x), 2.0, 1.5, -0.3))
    expected = torch.log(0.2 * hard + 0.8 * mapped)
    assert relative_error(found, expected) < 1e-9
    around = torch.log(0.4 * softmax(n(x)) + 0.6 * (0.9 * softmax(r(x)) + 0.1 * mapped))
    along = torch.randn(found.shape, generator=generator(), dtype=F64)
    (gradient_found,) = torch.autograd.grad((found * along).sum(), x)
    (gradient_expected,) = torch.autograd.grad((around * along).sum(), x)
    assert relative_error(gradient_found, gradient_expected) < 1e-9
    assert kl(softmax(found), softmax(expected)).max() < 1e-12


def test_sure_networks_give_finite_outputs_and_gradients() -> None:
    """Probabilities below the smallest number of fp32."""
    network = copy.deepcopy(mixed()[0]).float()
    for member in (network.natural, network.robust):
        member.head.weight.data *= 1e4  # type: ignore[union-attr, operator]
    network.scale.fill_(5)
    network.power.fill_(4)
    x = X.float().requires_grad_()
    logits = network(x)
    (found,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, Y), x)
    assert logits.isfinite().all()
    assert found.isfinite().all()
    assert logits.exp().sum(1).sub(1).abs().max() < 1e-4


def test_attacks_on_a_folded_mixture_see_its_gradient() -> None:
    """Evaluation attacks a traced copy, in which a detached part must stay detached."""
    network, *_ = mixed()
    outputs = []
    for model in (network, FoldedView(network)):
        x = X.clone().requires_grad_()
        loss = ce(model(x))
        outputs.append((loss.detach(), *torch.autograd.grad(loss, x)))
    for one, other in zip(*outputs, strict=True):
        assert relative_error(one, other) < 1e-9
    assert outputs[0][1].abs().max() > 1e-6


def test_a_mixture_can_be_submitted() -> None:
    """Its source, rebuilt from a file of its own, gives the same logits."""
    config = ModelConfig.model_validate({"name": "small-resnet", "width": 8})
    networks = [build_model(config, num_classes=10, image_size=32) for _ in range(2)]
    source = standalone_source(Mixed(*networks).eval(), "mixed", torch.rand(2, 3, 32, 32))
    assert "return Mixed(natural=ResNet(10," in source


def test_the_mixture_is_chosen_by_its_grid() -> None:
    """Every point by loops: the margin that 80 % of right answers have, and how many wrong answers
    have it too; the fewest win, then the largest margin."""
    draws = generator()
    y = torch.arange(12) % 4
    right = torch.randn(12, 4, generator=draws, dtype=F64)
    right[range(12), y] = right.amax(1) + torch.rand(12, generator=draws, dtype=F64)
    wrong = torch.randn(10, 4, generator=draws, dtype=F64)
    recipe = MixedNUTS(name="mixednuts", keep=0.8, scales=(0.1, 2), powers=(1, 3), biases=(-0.5, 0))

    def margin_kept(z: Tensor, share: float) -> float:
        rows = [[float(v) for v in softmax(z)[i]] for i in range(12)]
        margins = [row[k] - max(row[:k] + row[k + 1 :]) for row, k in zip(rows, y, strict=True)]
        return float(torch.tensor(margins, dtype=F64).quantile(1 - share))

    points = []
    for i, j, k in product(range(8), repeat=3):
        s, p, c = 0.1 * 20 ** (i / 7), 1 + 2 * j / 7, -0.5 + 0.5 * k / 7
        kept = margin_kept(transformed(right, s, p, c), 0.8)
        two = softmax(transformed(wrong, s, p, c)).sort(1, descending=True).values
        also = sum(float(row[0] - row[1]) >= kept for row in two)
        if kept > 1e-6:
            points.append((also, -kept, s, p, c))
    also, kept, s, p, c = min(points)
    found = chosen(right, y, wrong, recipe)
    assert [found.scale, found.power, found.bias] == pytest.approx([s, p, c], abs=1e-6)
    assert found.alpha == pytest.approx(1 / (1 - kept), abs=1e-6)
    assert found.plain_alpha == pytest.approx(1 / (1 + margin_kept(right, 0.95)), abs=1e-9)
    assert 0 < also < 10


def test_mixednuts_chooses_on_held_out_images_in_its_only_step() -> None:
    method = build("mixednuts")
    network = method.deployed()
    before = [float(network.get_buffer(name)) for name in MixtureNumbers.model_fields]
    assert method.update((X, Y), 0.0) == {}
    after = [float(network.get_buffer(name)) for name in MixtureNumbers.model_fields]
    assert before == [0.5] * 5
    assert after != before
    assert 0.5 <= after[3] < 1
    assert method.passes == 0
    assert method.inference_passes == 2


def test_where_nothing_can_be_kept_the_mixture_is_the_authors() -> None:
    """A network without right answers under attack; a grid whose transformation loses them all."""
    recipe, nothing = MixedNUTS(name="mixednuts"), torch.empty(0, 3, dtype=F64)
    with pytest.warns(UserWarning, match="is right on no held-out image"):
        found = chosen(nothing, torch.empty(0, dtype=torch.long), nothing, recipe)
    assert found == MixtureNumbers(scale=5, power=4, bias=-1.1, alpha=0.99875, plain_alpha=0.95705)
    far = recipe.model_copy(update={"biases": (-4.0, -3.0)})  # GELU falls there
    right = torch.tensor([[1.0, 0.5, -1.0]], dtype=F64)
    with pytest.warns(UserWarning, match="no point of the grid keeps"):
        assert chosen(right, torch.tensor([0]), right, far) == found
