"""The time of a pass through a network, in every form that crafting and training could use, and the
time of its arithmetic only."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmark.attacks.folding import Autocast, FoldedView
from benchmark.attacks.pgd import attack_loss, input_gradient
from benchmark.core.crafting import crafting
from benchmark.core.precision import Precision
from benchmark.speed.clock import Clock, Work

# Forward; forward and gradient to the images; forward and gradient to the weights in train mode.
PassKind = Literal["forward", "gradient", "training"]
KINDS: tuple[PassKind, ...] = ("forward", "gradient", "training")

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Sides of the square matrices by whose product the speed of the arithmetic units is measured.
_GEMM_SIDES = (512, 1024, 2048)


@dataclass(frozen=True)
class PassForm:
    """One way to make a pass. Folding is for crafting; in training BatchNorm stays."""

    kind: PassKind
    precision: Precision
    batch_size: int
    channels_last: bool
    folded: bool

    def __str__(self) -> str:
        layout = "channels_last" if self.channels_last else "contiguous"
        folded = ", folded" if self.folded else ""
        return f"{self.kind} {self.precision}, {self.batch_size} images, {layout}{folded}"


def forms(
    batch_size: int, precisions: Sequence[Precision], kinds: Sequence[PassKind] = KINDS
) -> Iterator[PassForm]:
    """What is tried: the batch whole and in quarters, both layouts, folded and not."""
    for kind in kinds:
        for precision in precisions:
            for size in (max(2, batch_size // 4), batch_size):
                for channels_last in (True, False):
                    for folded in (True, False) if kind != "training" else (False,):
                        yield PassForm(kind, precision, size, channels_last, folded)


def pass_work(kind: PassKind, model: nn.Module, x: Tensor, y: Tensor) -> Work:
    """One pass of ``model``, in the mode that it is in, over images x [n, 3, h, w] in [0, 1]."""

    def forward() -> None:
        with torch.no_grad():
            model(x)

    def gradient() -> None:
        input_gradient(model, x, attack_loss("ce", y))

    def training() -> None:
        F.cross_entropy(model(x), y).backward()
        model.zero_grad(set_to_none=True)

    return {"forward": forward, "gradient": gradient, "training": training}[kind]


def form_work(form: PassForm, model: nn.Module, x: Tensor, y: Tensor) -> Work:
    """A pass in that form over the first images of x; ``model`` is copied."""
    layout = torch.channels_last if form.channels_last else torch.contiguous_format
    net: nn.Module = copy.deepcopy(model).to(memory_format=layout)
    if form.kind == "training":
        net.train()
    else:
        net.eval().requires_grad_(False)
        if form.folded:
            net = FoldedView(net, channels_last=form.channels_last)
    if form.precision == "bf16":
        net = Autocast(net, x.device.type)
    size = form.batch_size
    return pass_work(form.kind, net, x[:size].contiguous(memory_format=layout), y[:size])


@dataclass(frozen=True)
class PassLimit:
    """The fastest measured pass of each kind, and the time of its arithmetic at the speed of a
    matrix product. Seconds are per image.

    Attributes:
        form: the best form.
        gflop: per image, counted on the network as it is (folding adds and takes next to nothing).
    """

    form: PassForm
    seconds: float
    gflop: float
    arithmetic: float


Key = tuple[PassKind, Precision]


def limits(
    seconds: dict[PassForm, list[float]],
    gflop: dict[PassKind, float],
    rates: dict[Precision, float],
) -> dict[Key, PassLimit]:
    """The limits by kind and precision. The limit for bf16 includes the forms in fp32, if faster.

    Args:
        seconds: of each form's pass, over repeats.
        gflop: per image and kind; rates: of matrix products, in GFLOP/s.
    """
    found: dict[Key, PassLimit] = {}
    for precision, rate in rates.items():
        allowed = ("fp32", precision)
        for kind in dict.fromkeys(form.kind for form in seconds):
            best = min(
                (form for form in seconds if form.kind == kind and form.precision in allowed),
                key=lambda form: median(seconds[form]) / form.batch_size,
            )
            per_image = median(seconds[best]) / best.batch_size
            found[kind, precision] = PassLimit(best, per_image, gflop[kind], gflop[kind] / rate)
    return found


def count_gflop(model: nn.Module, x: Tensor, y: Tensor) -> dict[PassKind, float]:
    """GFLOP per image of each kind of pass (a multiplication and an addition are two)."""
    model, x, y = copy.deepcopy(model), x[:2], y[:2]
    counted: dict[PassKind, float] = {}
    with crafting(model):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(x)
        counted["forward"] = counter.get_total_flops() / len(x) / 1e9
        with FlopCounterMode(display=False) as counter:
            # not by input_gradient: the counter takes no autograd.grad
            F.cross_entropy(model(x.clone().requires_grad_()), y).backward()
        counted["gradient"] = counter.get_total_flops() / len(x) / 1e9
    with FlopCounterMode(display=False) as counter:
        pass_work("training", model.train(), x, y)()
    counted["training"] = counter.get_total_flops() / len(x) / 1e9
    return counted


def gemm_rate(precision: Precision, device: torch.device, clock: Clock, repeats: int) -> float:
    """GFLOP/s of the best square matrix product."""
    best = 0.0
    for side in _GEMM_SIDES:
        a, b = (torch.randn(side, side, device=device).to(_DTYPES[precision]) for _ in range(2))
        work = lambda a=a, b=b: torch.mm(a, b)  # noqa: E731
        best = max(best, 2 * side**3 / 1e9 / best_of(work, clock, repeats))
    return best


def best_of(work: Work, clock: Clock, repeats: int) -> float:
    """Seconds of the fastest of so many repeats, after a warm-up."""
    work()
    return min(clock.of(work) for _ in range(repeats))
