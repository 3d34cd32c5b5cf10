"""Checks whether attacks on a model can be trusted; each finding has a name.

Apparent robustness that comes from a missing gradient, from noise or from the state of a layer is
not real (Athalye et al., 1802.00420; Carlini et al., 1902.06705; Croce et al., 2010.09670). Each
check costs a few passes over one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from unittest import mock

import pandas as pd
import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from benchmark.attacks import pgd
from benchmark.attacks.pgd import AttackLoss, attack_loss
from benchmark.core.crafting import crafting
from benchmark.core.threat import Pixels, ThreatModel
from benchmark.records.statistics import wilson

# The most images that are used when accuracies are compared. Other checks use a part of them, only
# images that are classified correctly when clean if there are enough.
IMAGES = 256
_FEW = 64
# Two passes of a deterministic network agree to rounding, relative to the largest logit; another
# batch size means other kernels, which round differently.
_SAME, _SAME_IN_OTHER_BATCH = 1e-5, 1e-3
# Share of images with an input gradient of zero above which attacks are blind.
_BLIND = 0.1
# Gradients below this count as zero; a confident network's 1e-20 still has its sign.
_VANISHING = 1e-30
# Logits further apart than this saturate the softmax in fp32, and its gradient with it.
_LARGE_MARGIN = 50.0
# l_inf radius at which any image can be made mid-grey, so that no network can be robust.
_HUGE = ThreatModel(norm="linf", eps=Pixels("0.5"), step=Pixels("0.05"), steps=20)
# Normalisations that are often done outside of the model: mean and standard deviation per channel.
_NORMALISATIONS: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "normalised by CIFAR-10's mean": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    "normalised by ImageNet's mean": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "in [-1, 1]": ((0.5,) * 3, (0.5,) * 3),
    "in [0, 255]": ((0.0,) * 3, (1 / 255,) * 3),
}
# A finding needs an increase of accuracy by this much with one of them, and this p-value in a
# one-sided sign test on the images that become right or wrong. A large increase cannot be required,
# since a network with BatchNorm classifies a part of the images correctly in either range.
_BETTER, _CHANCE = 0.05, 1e-4


# What comparing attacks can find.
ACROSS = ("black-box-beats-gradients", "pgd-far-above-autoattack")
# Square alone breaks more than this share, and at least so many images. In 63 honest runs recorded
# here it broke none.
_SQUARE_SHARE, _SQUARE_IMAGES = 0.005, 3
# PGD-20's surplus over AutoAttack that needs explaining; the largest of those runs had 9 points of
# 200 images, lower bound 6.
_SURPLUS = 0.1
# With fewer steps, PGD is weak even without masked gradients.
_ENOUGH_STEPS = 20


@dataclass(frozen=True)
class Finding:
    """Something that makes attack results doubtful.

    Attributes:
        name: short and stable, for records and marks.
        text: what was seen, with its figure.
    """

    name: str
    text: str

    def of(self, function: str) -> dict[str, str]:
        """As it stands in a record, with the function of the network that it is about."""
        return {"name": self.name, "text": self.text, "function": function}


def check(model: nn.Module, x: Tensor, y: Tensor) -> list[Finding]:
    """Everything that makes attacks on ``model`` doubtful; empty if there is nothing.

    The model and the global generators are unchanged afterwards.

    Args:
        model: images [n, c, h, w] in [0, 1] to logits [n, k].
        x: at least two images; y: their labels.
    """
    findings: list[Finding] = []
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.random.fork_rng(devices=_cuda()), crafting(model):
        # Spread over all of them: they may be ordered by class.
        some = torch.linspace(0, len(x) - 1, min(len(x), _FEW), device=x.device).round().long()
        findings += _try(_normalisation, model, x, y, some)
        x, y = x[some], y[some]
        with torch.no_grad():
            logits = model(x)
        right = logits.argmax(1) == y
        kept = right if int(right.sum()) >= 2 else torch.ones_like(right)
        chosen = x[kept], y[kept]
        findings += _modes(model)
        findings += _outputs(logits)
        findings += _try(_randomness, model, x, logits)
        findings += _try(_optimisation, model, x[:4])
        gradients = _try(_gradients, model, *chosen)
        findings += gradients
        if not any(finding.name in ("no-gradient", "check-failed") for finding in gradients):
            findings += _try(_attacks, model, *chosen, logits.shape[1])
    changed = [n for n, value in model.state_dict().items() if not torch.equal(value, state[n])]
    if changed:
        model.load_state_dict(state)
        findings.append(
            Finding("state-changes", f"being attacked changes the model's state ({changed[0]})")
        )
    return findings


def _try(look: Callable[..., list[Finding]], *arguments: Any) -> list[Finding]:
    """A check that fails with an error becomes a finding and does not end the evaluation."""
    # Foreign forward code may raise any exception.
    try:
        return look(*arguments)
    except Exception as error:
        what = look.__name__.strip("_")
        reason = str(error).splitlines()[0] if str(error) else ""
        return [Finding("check-failed", f"{what}: {type(error).__name__}: {reason}")]


def _cuda() -> range:
    return range(torch.cuda.device_count())


def _modes(model: nn.Module) -> list[Finding]:
    """Layers that are in train mode although the model was put in eval mode."""
    for name, module in model.named_modules():
        kind = "BatchNorm" if isinstance(module, _BatchNorm) else "dropout"
        if module.training and isinstance(module, _BatchNorm | _DropoutNd):
            return [Finding("train-mode", f"{kind} layer {name or 'model'} stays in train mode")]
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            return [
                Finding("train-mode", f"BatchNorm layer {name} normalises by the batch it is given")
            ]
    return []


def _outputs(logits: Tensor) -> list[Finding]:
    rows = logits.double()
    low, high = float(rows.min()), float(rows.max())
    sums = rows.sum(1)
    if low >= 0 and high <= 1 and bool((sums - 1).abs().max() < 1e-3):
        if bool(((rows < 1e-6) | (rows > 1 - 1e-6)).all()):
            return [Finding("one-hot", "the output is one-hot: return logits")]
        return [Finding("probabilities", "the output is a probability vector: return logits")]
    steps = 64 * rows
    if bool((steps - steps.round()).abs().max() < 1e-6):
        return [Finding("rounded-logits", "all logits are multiples of 1/64: they are rounded")]
    two = rows.topk(2, 1).values
    margin = float((two[:, 0] - two[:, 1]).median())
    if margin > _LARGE_MARGIN:
        return [
            Finding(
                "logit-scale",
                f"the median margin between logits is {margin:.3g}: cross-entropy saturates, and "
                "attacks on it are blind",
            )
        ]
    return []


def _randomness(model: nn.Module, x: Tensor, logits: Tensor) -> list[Finding]:
    scale = max(1.0, float(logits.abs().max()))
    with torch.no_grad():
        again = float((model(x) - logits).abs().max()) / scale
        if again > _SAME:
            return [
                Finding("random", f"two forward passes differ by {again:.2g} of the largest logit")
            ]
        half = len(x) // 2 + 1
        order = torch.arange(len(x) - 1, -1, -1, device=x.device)
        parts = torch.cat([model(part) for part in x[order].split(half)])
        apart = float((parts - logits[order]).abs().max()) / scale
    if apart > _SAME_IN_OTHER_BATCH:
        return [
            Finding(
                "batch-dependent",
                f"an image's logits change by {apart:.2g} of the largest with its batch",
            )
        ]
    return []


def _optimisation(model: nn.Module, x: Tensor) -> list[Finding]:
    """Gradients taken inside forward."""
    with _counted() as count, torch.enable_grad():
        model(x)
    if count():
        return [Finding("optimisation-in-forward", f"one forward pass takes {count()} gradient(s)")]
    return []


@contextmanager
def _counted() -> Iterator[Callable[[], int]]:
    """How often autograd is asked for gradients inside."""
    seen = 0

    def counting(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal seen
            seen += 1
            return real(*arguments, **options)

        return call

    with (
        mock.patch("torch.autograd.grad", counting(torch.autograd.grad)),
        mock.patch("torch.autograd.backward", counting(torch.autograd.backward)),
    ):
        yield lambda: seen


def _input_gradient(model: nn.Module, x: Tensor, loss: AttackLoss) -> Tensor | None:
    """The gradient of a summed loss to the images; None if none arrives there."""
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        value = loss(model(x))
        if not value.requires_grad:
            return None
        (grad,) = torch.autograd.grad(value, x, allow_unused=True)
    return None if grad is None else grad.detach()


def _gradients(model: nn.Module, x: Tensor, y: Tensor) -> list[Finding]:
    cross_entropy = _input_gradient(model, x, attack_loss("ce", y))
    if cross_entropy is None:
        return [Finding("no-gradient", "no gradient reaches the input")]
    if not bool(cross_entropy.isfinite().all()):
        return [Finding("gradient-not-finite", "input gradients are NaN or infinite")]
    blind = float((cross_entropy.flatten(1).abs().amax(1) < _VANISHING).double().mean())
    if blind <= _BLIND:
        return []
    margin = _input_gradient(model, x, attack_loss("cw", y))
    lost = margin is None or bool(
        (margin.flatten(1).abs().amax(1) < _VANISHING).double().mean() > _BLIND
    )
    share = f"the input gradient of the cross-entropy is zero on {100 * blind:.0f} % of images"
    if lost:
        return [Finding("zero-gradient", f"{share}, and that of the margin too")]
    return [Finding("vanishing-gradient", f"{share}, while that of the margin is not")]


def _normalisation(model: nn.Module, x: Tensor, y: Tensor, some: Tensor) -> list[Finding]:
    """A model that is better on images in another range was trained on such images. All images are
    used only if the result on ``some`` (indices) suggests this."""
    found: tuple[float, float, str] | None = None
    usual = {len(some): _is_right(model, x[some], y[some])}
    for name, (mean, std) in _ranges(x).items():
        shift, scale = (x.new_tensor(value).view(1, -1, 1, 1) for value in (mean, std))
        other = _is_right(model, (x[some] - shift) / scale, y[some])
        if int(other.sum()) <= int(usual[len(some)].sum()):
            continue
        if len(x) not in usual:
            usual[len(x)] = _is_right(model, x, y)
        right = usual[len(x)]
        if len(other) < len(x):
            other = _is_right(model, (x - shift) / scale, y)
        gained, lost = int((other & ~right).sum()), int((right & ~other).sum())
        if gained - lost < _BETTER * len(x):
            continue
        if binomtest(gained, gained + lost, alternative="greater").pvalue < _CHANCE:
            shares = float(other.double().mean()), float(right.double().mean())
            found = max(found or (*shares, name), (*shares, name))
    if found is None:
        return []
    return [
        Finding(
            "normalisation-outside",
            f"accuracy is {100 * found[0]:.0f} % on images {found[2]} and {100 * found[1]:.0f} % "
            "on images in [0, 1]: put the normalisation into the model",
        )
    ]


def _is_right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in x.split(_FEW)]) == y


def _ranges(x: Tensor) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
    """Mean and standard deviation per channel by which images may have been normalised."""
    mean = x.mean((0, 2, 3)).tolist()
    std = x.std((0, 2, 3)).clamp_min(1e-3).tolist()
    ranges: dict[str, tuple[Sequence[float], Sequence[float]]] = {
        "normalised by their own mean and deviation": (mean, std),
        "less their own mean": (mean, (1.0,) * x.shape[1]),
    }
    return ranges | (_NORMALISATIONS if x.shape[1] == 3 else {})


def _attacks(model: nn.Module, x: Tensor, y: Tensor, classes: int) -> list[Finding]:
    """Check that attacks with more steps are stronger, and that one with a huge radius succeeds."""
    findings = []
    x, y = x[: _FEW // 2], y[: _FEW // 2]
    generator = torch.Generator(device=x.device).manual_seed(0)
    losses = []
    for steps in (1, 20):
        threat = ThreatModel(norm="linf", eps=Pixels("8/255"), step=Pixels("1/255"), steps=steps)
        x_adv = pgd(model, x, y, threat, start="none", generator=generator)
        with torch.no_grad():
            losses.append(float(F.cross_entropy(model(x_adv), y)))
    with torch.no_grad():
        losses.insert(0, float(F.cross_entropy(model(x), y)))
    if not losses[0] < losses[1] < losses[2]:
        shown = ", ".join(f"{loss:.4g}" for loss in losses)
        findings.append(
            Finding(
                "loss-does-not-rise",
                f"the loss after 0, 1 and 20 attack steps is {shown}: more steps should find more",
            )
        )
    x_adv = pgd(model, x, y, _HUGE, start="none", generator=generator)
    with torch.no_grad():
        left = float((model(x_adv).argmax(1) == y).double().mean())
    if left > 1 / classes + 0.2:
        findings.append(
            Finding(
                "robust-at-huge-eps",
                f"{100 * left:.0f} % of images survive PGD at eps 0.5, which can turn any image "
                "grey",
            )
        )
    return findings


def across(metrics: Mapping[str, Mapping[str, Any]], outcomes: pd.DataFrame) -> list[Finding]:
    """What attacks on the same model say about one another: findings named in ``ACROSS``.

    Args:
        metrics: entries of an evaluation record by name.
        outcomes: one row per test image, a nullable boolean column per metric.
    """
    findings = []
    for name, entry in metrics.items():
        if entry["kind"] != "autoattack" or entry["form"]:
            continue
        detail, n = entry["detail"], int(entry["n"])
        left = list((detail.get("after") or {}).items())
        for (_, before), (attack, after) in pairwise(left):
            broken = round((before - after) * n)
            if attack == "square" and broken >= max(_SQUARE_IMAGES, _SQUARE_SHARE * n):
                findings.append(
                    Finding(
                        "black-box-beats-gradients",
                        f"in {name} Square breaks {broken} of {n} images that no attack with "
                        "gradients did: gradients are masked",
                    )
                )
        for other, weaker in metrics.items():
            if (
                weaker["kind"] != "pgd"
                or weaker["form"]
                or weaker["detail"]["threat"]["steps"] < _ENOUGH_STEPS
            ):
                continue
            if _same_ball(weaker["detail"]["threat"], detail):
                findings += _surplus(other, name, outcomes)
    return findings


def _same_ball(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one["norm"] == other["norm"] and Pixels(one["eps"]) == Pixels(other["eps"])


def _surplus(pgd_name: str, name: str, outcomes: pd.DataFrame) -> list[Finding]:
    """PGD leaves many images right that AutoAttack fools."""
    both = outcomes[[pgd_name, name]].dropna().astype(bool)
    only = int((both[pgd_name] & ~both[name]).sum())
    if not len(both) or wilson(only, len(both)).low <= _SURPLUS:
        return []
    return [
        Finding(
            "pgd-far-above-autoattack",
            f"{only} of {len(both)} images survive {pgd_name} but not {name}: the loss or its "
            "gradients mislead PGD",
        )
    ]
