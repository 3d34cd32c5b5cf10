"""``attack``: adversarial images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from benchmark.attacks.autoattack import ATTACKS, run_autoattack
from benchmark.attacks.pgd import pgd
from benchmark.core.config import explain
from benchmark.core.crafting import crafting
from benchmark.core.errors import ConfigError, DataError
from benchmark.core.registry import did_you_mean
from benchmark.core.threat import NormName, Pixels, ThreatModel, check_eps

# The settings by which variants of PGD differ, as in the metrics of the same names.
_PGD: Mapping[str, Mapping[str, Any]] = {
    "pgd": {},
    "mim": {"momentum": 1.0},
    "cw": {"loss": "cw"},
}
_USUAL = {"linf": "8/255", "l2": "128/255", "l1": "12"}


def attack(
    name: str,
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: str | float | None = None,
    norm: NormName = "linf",
    steps: int = 20,
    step: str | float | None = None,
    start: Literal["uniform", "gaussian", "none"] = "uniform",
    seed: int = 0,
    batch_size: int = 256,
) -> Tensor:
    """Adversarial images for ``x``: within ``eps`` of it under ``norm``, and in [0, 1].

    The network is attacked in eval mode, on its own device. Its mode is restored afterwards.

    Args:
        name: ``pgd``, ``mim`` or ``cw`` (the last iterate of ``steps`` steps), ``autoattack``, or
            one of its parts: ``apgd-ce``, ``apgd-t``, ``fab-t``, ``square``, ...
        net: maps images [n, c, h, w] in [0, 1] to logits [n, k].
        x: float images in [0, 1]; y: labels [n].
        eps: radius in units of pixels, ``"8/255"`` or a number. Default: 8/255 under l_inf, 128/255
            under l_2, 12 under l_1.
        steps, step, start: only for ``pgd``, ``mim`` and ``cw``; the default step size is
            2.5 eps / steps.
        seed: seed of all random numbers.
        batch_size: images per forward pass.

    Returns:
        A tensor like ``x``, detached. AutoAttack and its parts return the image itself if it is
        misclassified without an attack, or if they find no adversarial example.

    Raises:
        ConfigError: an unknown attack, or an impossible radius (8 instead of 8/255).
        DataError: images outside of [0, 1], or labels that do not fit the images.

    >>> import torch
    >>> import generalist_bench as gb
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
    >>> x, y = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    >>> x_adv = gb.attack("pgd", net, x, y, eps="8/255", steps=5)
    >>> bool((x_adv - x).abs().max() <= 8 / 255 + 1e-6)
    True
    """
    if norm not in get_args(NormName):
        raise ConfigError(f"unknown norm {norm!r}; {did_you_mean(str(norm), get_args(NormName))}")
    threat = _threat(_USUAL[norm] if eps is None else eps, norm, steps, step)
    _check(x, y)
    device = next((weight.device for weight in net.parameters()), x.device)
    moved, labels = x.detach().to(device), y.detach().to(device)
    if name in _PGD:
        generator = torch.Generator(device=device).manual_seed(seed)
        with crafting(net):
            parts = [
                pgd(net, a, b, threat, start=start, generator=generator, **_PGD[name])
                for a, b in zip(moved.split(batch_size), labels.split(batch_size), strict=True)
            ]
        return torch.cat(parts).to(x.device)
    if name != "autoattack" and name not in ATTACKS:
        known = [*_PGD, "autoattack", *ATTACKS]
        raise ConfigError(f"unknown attack {name!r}; {did_you_mean(name, known)}")
    result = run_autoattack(
        net,
        moved,
        labels,
        norm=norm,
        eps=float(threat.eps),
        seed=seed,
        attacks=None if name == "autoattack" else [name],
        batch_size=batch_size,
    )
    return result.x_adv.to(x.device)


def _threat(eps: str | float, norm: NormName, steps: int, step: str | float | None) -> ThreatModel:
    try:
        radius = Pixels(eps)
        check_eps(radius, norm)
        given = {"norm": norm, "eps": radius, "steps": steps}
        return ThreatModel.model_validate(given | ({} if step is None else {"step": step}))
    except ValidationError as error:
        raise ConfigError(explain(error, ThreatModel)) from error
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _check(x: Tensor, y: Tensor) -> None:
    if not (isinstance(x, Tensor) and x.is_floating_point() and x.ndim == 4):
        raise DataError("x must be a float tensor of images [n, c, h, w]; divide bytes by 255")
    if not (isinstance(y, Tensor) and y.shape == x.shape[:1] and not y.is_floating_point()):
        raise DataError("y must be a tensor of whole numbers, a label for each image of x")
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):
        raise DataError(
            f"pixels of x go from {low:.3g} to {high:.3g}, and must lie in [0, 1]; put the "
            "normalisation into the network"
        )
