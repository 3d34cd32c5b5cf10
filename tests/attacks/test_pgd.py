"""PGD, MIM and their losses: step counts, balls, and the update formulas by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from tiny_learners import images, relative_error, tiny_net
from torch import Tensor, nn

from benchmark.attacks.norms import norm_of
from benchmark.attacks.pgd import GAUSSIAN_START, attack_loss, margin, pgd
from benchmark.core.errors import BenchmarkError
from benchmark.core.threat import ThreatModel

EPS = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}
NORM_NAMES = sorted(EPS)


def threat(norm: str, steps: int, eps: float | None = None) -> ThreatModel:
    return ThreatModel.model_validate({"norm": norm, "eps": eps or EPS[norm], "steps": steps})


def network(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    return tiny_net(seed, dtype).eval()


class Counting(nn.Module):
    """Counts forward passes, and backward passes that arrive at the logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forwards = self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        logits = self.model(x)
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, grad: Tensor) -> None:
        self.backwards += 1


@pytest.mark.parametrize("norm", NORM_NAMES)
@pytest.mark.parametrize("loss", ["ce", "kl", "cw", "squared"])
def test_pgd_20_takes_20_gradient_steps(norm: str, loss: str) -> None:
    """The released code's "PGD-20" takes 10: here the name is the number of gradients."""
    model = Counting(network()).requires_grad_(False)
    x, y = images(4, dtype=torch.float64)
    ticks: list[int] = []
    pgd(model, x, y, threat(norm, 20), loss=loss, start="gaussian", on_step=lambda: ticks.append(1))  # type: ignore[arg-type]
    assert model.backwards == 20
    assert model.forwards == 20 + (loss in ("kl", "squared"))  # the clean target, without gradient
    assert len(ticks) == 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("start", ["uniform", "gaussian", "none"])
@pytest.mark.parametrize("norm", NORM_NAMES)
def test_stays_in_ball_and_box_and_the_loss_rises(
    norm: str, start: str, dtype: torch.dtype
) -> None:
    """The two constraints of every reported robust accuracy, and that the attack attacks."""
    model = network(dtype=dtype)
    x, y = images(8, dtype=dtype)
    x[:2] = x[:2].round()  # corners of the box
    kept = x.clone()
    generator = torch.Generator().manual_seed(0)
    x_adv = pgd(model, x, y, threat(norm, 20), start=start, generator=generator)  # type: ignore[arg-type]
    assert norm_of(norm).length(x_adv - x).max() <= EPS[norm] * (1 + 1e-5)
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert torch.equal(x, kept)
    assert not x_adv.requires_grad
    clean = F.cross_entropy(model(x), y, reduction="none")
    gain = F.cross_entropy(model(x_adv), y, reduction="none") - clean
    assert (gain[2:] > 0).all()
    # In a corner of the box, all of the few coordinates of an l_1 step may point outwards.
    assert norm == "l1" or (gain[:2] > 0).all()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("momentum", [0.0, 1.0])
@pytest.mark.parametrize("loss", ["ce", "kl", "cw"])
@pytest.mark.parametrize("norm", NORM_NAMES)
def test_an_image_is_attacked_alone_as_in_a_batch(norm: str, loss: str, momentum: float) -> None:
    """Batch means of losses or batch-wide normalisation would tie examples to their neighbours."""
    model = network()
    x, y = images(6, dtype=torch.float64)

    def attack(rows: slice, start: str) -> Tensor:
        return pgd(
            model, x[rows], y[rows], threat(norm, 5), loss=loss, start=start, momentum=momentum,  # type: ignore[arg-type]
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip

    # KL has no gradient at the image itself; the first draws of a seed are those of image 0.
    start = "gaussian" if loss == "kl" else "none"
    together = attack(slice(None), start)
    for i in range(len(x)) if start == "none" else [0]:
        alone = attack(slice(i, i + 1), start)
        torch.testing.assert_close(alone, together[i : i + 1], rtol=0, atol=1e-9)


def unit(norm: str, grad: Tensor) -> Tensor:
    """The ascent direction of one image, spelled out."""
    if norm == "linf":
        return torch.where(grad > 0, 1.0, torch.where(grad < 0, -1.0, 0.0)).to(grad)
    return grad / math.sqrt(float((grad**2).sum()))


def back_to_ball(norm: str, delta: Tensor, eps: float) -> Tensor:
    if norm == "linf":
        return torch.minimum(torch.maximum(delta, torch.tensor(-eps)), torch.tensor(eps))
    length = math.sqrt(float((delta**2).sum()))
    return delta if length <= eps else delta * eps / length


@pytest.mark.parametrize("momentum", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_steps_follow_the_formula(norm: str, momentum: float) -> None:
    """PGD and MIM: g <- mu * g + grad / mean|grad|, x <- P(x + step * unit(g)), image by image."""
    model, steps = network(), 2 if momentum else 4
    x, y = images(3, dtype=torch.float64)
    given = ThreatModel.model_validate(
        {"norm": norm, "eps": EPS[norm], "step": EPS[norm] * 0.7, "steps": steps}
    )
    actual = pgd(model, x, y, given, start="none", momentum=momentum)
    for i in range(len(x)):
        here, memory = x[i].clone(), torch.zeros_like(x[i])
        for _ in range(steps):
            here.requires_grad_()
            logits = model(here[None])[0]
            loss = torch.log(torch.exp(logits).sum()) - logits[y[i]]
            (grad,) = torch.autograd.grad(loss, here)
            if momentum:
                memory = momentum * memory + grad / (grad.abs().sum() / grad.numel())
                grad = memory
            with torch.no_grad():
                moved = here + EPS[norm] * 0.7 * unit(norm, grad) - x[i]
                here = (x[i] + back_to_ball(norm, moved, EPS[norm])).clamp(0, 1)
        assert relative_error(actual[i] - x[i], here - x[i]) < 1e-6


def test_margin_is_positive_iff_misclassified() -> None:
    """The sign convention of the CW loss, with the other class found by a plain loop."""
    logits = torch.randn(64, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.arange(64) % 5
    values = margin(logits, y)
    for row, label, value in zip(logits, y, values, strict=True):
        others = [float(z) for k, z in enumerate(row) if k != label]
        assert float(value) == pytest.approx(max(others) - float(row[label]), rel=1e-12)
    assert torch.equal(values > 0, logits.argmax(1) != y)


@pytest.mark.parametrize("loss", ["ce", "kl", "cw", "squared"])
def test_losses_are_sums_over_examples(loss: str) -> None:
    """Formulas of the losses, value and gradient, with p_clean a constant."""
    generator = torch.Generator().manual_seed(0)
    logits, clean = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    y = torch.arange(6) % 4
    logits.requires_grad_()
    clean.requires_grad_()
    value = attack_loss(loss, y, clean)(logits)  # type: ignore[arg-type]
    p = torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True)
    q = (torch.exp(clean) / torch.exp(clean).sum(1, keepdim=True)).detach()
    true = F.one_hot(y, 4).double()
    best_other = F.one_hot((logits - 1e9 * true).argmax(1), 4).double()
    expected = {
        "ce": -(true * torch.log(p)).sum(),
        "kl": (q * (torch.log(q) - torch.log(p))).sum(),
        "cw": ((best_other - true) * logits).sum(),
        "squared": ((p - q) ** 2).sum(),
    }[loss]
    inner = 2 * p * (p - q)
    slopes = {
        "ce": p - true,
        "kl": p - q,
        "cw": best_other - true,
        "squared": inner - p * inner.sum(1, keepdim=True),
    }
    slope = slopes[loss]
    assert relative_error(value, expected) < 1e-9
    (grad,) = torch.autograd.grad(value, logits, retain_graph=True)
    assert relative_error(grad, slope) < 1e-9


def test_kl_needs_the_clean_logits() -> None:
    """Without a target there is no divergence: an error, not a silent cross-entropy."""
    with pytest.raises(BenchmarkError, match="logits of the clean images"):
        attack_loss("kl", torch.tensor([0]))


def test_gaussian_start_is_normal_with_sd_one_thousandth() -> None:
    """TRADES starts at x + 0.001 * N(0, I), not uniformly in the ball (steps too small to see)."""
    x = torch.full((16, 3, 8, 8), 0.5, dtype=torch.float64)
    tiny = ThreatModel.model_validate({"eps": "8/255", "step": 1e-9, "steps": 1})
    generator = torch.Generator().manual_seed(0)
    noise = (
        pgd(network(), x, images(16)[1], tiny, loss="kl", start="gaussian", generator=generator) - x
    )
    assert GAUSSIAN_START == 0.001
    assert float(noise.std()) == pytest.approx(0.001, rel=0.05)
    # A normal draw leaves 4.6 % beyond two standard deviations; a uniform one leaves none.
    assert 0.03 < float((noise.abs() > 0.002).double().mean()) < 0.065
    assert noise.abs().max() < 8 / 255 / 4


def test_gaussian_start_respects_a_smaller_ball() -> None:
    """With eps below the noise, the start is projected like any iterate."""
    x, y = images(4, dtype=torch.float64)
    x_adv = pgd(network(), x, y, threat("l2", 1, eps=1e-4), loss="kl", start="gaussian")
    assert norm_of("l2").length(x_adv - x).max() <= 1e-4 * (1 + 1e-9)


@pytest.mark.parametrize("norm", NORM_NAMES)
def test_a_gradient_of_nan_makes_no_image_of_nan(norm: str) -> None:
    """Found by fuzzing: an image of NaN, which no network gets right, counted as a success."""

    class Kinked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            zero = (x.flatten(1) * 0).sum(1, keepdim=True)
            return torch.eye(3)[:1] + zero.sqrt()  # d sqrt(u) / du at 0, times 0

    x, y = images(4)[0], torch.zeros(4, dtype=torch.long)
    x_adv = pgd(Kinked(), x, y, threat(norm, 3))
    assert x_adv.isfinite().all()
    assert (Kinked()(x_adv).argmax(1) == y).all()
