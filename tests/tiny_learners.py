"""A network of a few hundred parameters, and settings and batches to train it with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.core.averaging import floating_state
from benchmark.core.method import Batch, Method, Recipe, make_recipe
from benchmark.core.setting import Setting
from benchmark.core.weights import Weights

CLASSES = 3

# Two attack steps, and a learning rate at which eight steps move every weight.
CONTEXT: dict[str, Any] = {
    "threats": {
        "linf": {"norm": "linf", "eps": "8/255", "step": "4/255", "steps": 2},
        "l2": {"norm": "l2", "eps": "128/255", "step": "60/255", "steps": 3},
        "l1": {"norm": "l1", "eps": "12", "step": "4", "steps": 2},
    },
    "learner": {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}},
}


class TinyNet(nn.Module):
    """Convolution, BatchNorm, ReLU, linear: images [n, 3, 8, 8] to logits [n, 3]."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width * 4 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).flatten(1))


class Ledger:
    """Counts the images of which a gradient arrives at the logits, and those of which none can;
    shared by copies of a net."""

    def __init__(self) -> None:
        self.images = 0
        self.forward_only = 0

    def __deepcopy__(self, memo: dict) -> Ledger:
        return self


class CountingNet(TinyNet):
    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        if logits.requires_grad:
            logits.register_hook(self._count)
        else:
            self.ledger.forward_only += len(x)
        return logits

    def _count(self, grad: Tensor) -> None:
        self.ledger.images += len(grad)


def dtype_of(model: nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype


def tiny_net(seed: int = 0, dtype: torch.dtype = torch.float32) -> TinyNet:
    """The same weights at every call with the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TinyNet().to(dtype)


def images(count: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
    """Random images [count, 3, 8, 8] in [0, 1] and labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 3, 8, 8, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randint(0, CLASSES, (count,), generator=generator)


def batches(count: int, size: int = 8) -> list[Batch]:
    """``count`` different batches."""
    return [images(size, seed=100 + index) for index in range(count)]


def calibration(dtype: torch.dtype = torch.float32) -> Iterator[Tensor]:
    """Two batches of clean images, always the same."""
    return iter([images(8, seed, dtype)[0] for seed in (7, 8)])


def held_out(dtype: torch.dtype = torch.float32) -> Iterator[Batch]:
    """Two batches of held-out images and labels, always the same."""
    return iter([images(8, seed, dtype) for seed in (9, 10)])


def load_teacher(model: nn.Module, weights: Weights) -> None:
    """Weights and running averages that depend on the place alone."""
    generator = torch.Generator().manual_seed(sum(weights.place.encode()))
    with torch.no_grad():
        for value in floating_state(model):
            drawn = torch.rand(value.shape, generator=generator, dtype=value.dtype)
            value.copy_(drawn - 0.5 if value.dim() > 1 else drawn + 0.5)  # variances are positive


def tiny_setting(
    total_steps: int = 8,
    steps_per_epoch: int = 2,
    new_model: Callable[[], nn.Module] = tiny_net,
    seed: int = 0,
    **more: Any,
) -> Setting:
    def initialised(init: int = 0, model: Mapping[str, Any] | None = None) -> nn.Module:
        """``new_model``, or one with other weights; a width stands for an architecture."""
        network = new_model() if model is None else TinyNet(**model).to(dtype_of(new_model()))
        if init or model:
            generator = torch.Generator().manual_seed(init)
            with torch.no_grad():
                for weight in network.parameters():
                    weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
        return network

    return Setting(
        new_model=initialised,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        generator=torch.Generator().manual_seed(seed),
        **{
            "calibration": lambda: calibration(dtype_of(new_model())),
            "held_out": lambda: held_out(dtype_of(new_model())),
            "load": load_teacher,
            **more,
        },
    )


def recipe(name: str, **hyper: Any) -> Recipe:
    return make_recipe({"name": name, **hyper}, CONTEXT)


def train(method: Method, data: list[Batch], total: int | None = None, start: int = 0) -> None:
    """One update per batch, with the progress the trainer would give."""
    for step, batch in enumerate(data, start=start):
        method.update(batch, step / (total or len(data)))


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of weights and buffers."""
    return copy.deepcopy(model.state_dict())


def assert_same_state(one: nn.Module | dict, other: nn.Module | dict) -> None:
    """Bit by bit equal weights and buffers."""
    first, second = (x if isinstance(x, dict) else x.state_dict() for x in (one, other))
    assert first.keys() == second.keys()
    different = [key for key in first if not torch.equal(first[key], second[key])]
    assert not different


def relative_error(actual: Tensor, expected: Tensor) -> float:
    difference = (actual - expected).detach().norm()
    return float(difference / expected.detach().norm().clamp_min(1e-30))
