"""Averages of networks in weight space, and the BatchNorm statistics that they need."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmark.core.batchnorm import SynchronisedBatchNorm2d
from benchmark.core.mesh import NO_PEERS, Axis


def floating_state(model: nn.Module, buffers: bool = True) -> list[Tensor]:
    """Parameters and, if asked, floating-point buffers, in a fixed order. The tensors are detached
    and share memory with the model."""
    state = [parameter.detach() for parameter in model.parameters()]
    if buffers:
        state += [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    return state


@torch.no_grad()
def move_towards(
    target: Sequence[Tensor],
    sources: Sequence[Sequence[Tensor]],
    shares: Sequence[float],
    decay: float,
    axis: Axis = NO_PEERS,
) -> None:
    """target <- decay * target + (1 - decay) * sum_k shares[k] * sources[k], in place.

    It makes one foreach call per learner, since a Python loop over the tensors of a ResNet-18 needs
    ten times as many kernel launches.

    Args:
        axis: processes with different sources k; the sum is over the sources of all of them.
    """
    target = list(target)
    if axis.size > 1:
        mixture = [torch.zeros_like(tensor) for tensor in target]
        for source, share in zip(sources, shares, strict=True):
            torch._foreach_add_(mixture, list(source), alpha=share)
        axis.sum_(mixture)
        sources, shares = [mixture], [1.0]
    torch._foreach_mul_(target, decay)
    for source, share in zip(sources, shares, strict=True):
        if share:
            torch._foreach_add_(target, list(source), alpha=(1 - decay) * share)


@torch.no_grad()
def projected(
    start: Sequence[Tensor],
    sources: Sequence[Sequence[Tensor]],
    shares: Sequence[float],
    onto: int,
) -> list[Tensor]:
    """Gradient projection (RAMP, 2402.06827, section 4.3), tensor by tensor.

        start + sum_k shares[k] * c_k * D_k,   D_k = sources[k] - start,

    where c_k is max(cos(D_k, D_o), 0), the cosine with the change of source o = ``onto``, and c_o
    is 1. So a change that points against that of source o is ignored, and so is every change of a
    tensor for which one of the two changes is 0. For a tensor with a single number (no dimensions),
    the result is that of source o.
    """
    return [
        _projected(tensor, [source[i] for source in sources], shares, onto)
        for i, tensor in enumerate(start)
    ]


def _projected(
    start: Tensor, sources: Sequence[Tensor], shares: Sequence[float], onto: int
) -> Tensor:
    if not start.dim():
        return sources[onto].clone()
    changes = [source - start for source in sources]
    mixture = start + shares[onto] * changes[onto]
    for k, (change, share) in enumerate(zip(changes, shares, strict=True)):
        if share and k != onto:
            cosine = F.cosine_similarity(changes[onto].flatten(), change.flatten(), dim=0)
            mixture += share * cosine.clamp_min(0) * change
    return mixture


@torch.no_grad()
def copy_state(target: Sequence[Tensor], source: Sequence[Tensor]) -> None:
    """target <- source, in place."""
    torch._foreach_copy_(list(target), list(source))


def interpolated(
    start: nn.Module, end: nn.Module, share: float, batches: Iterable[Tensor]
) -> nn.Module:
    """A new network (1 - share) * start + share * end, BatchNorm re-estimated on ``batches``.

    Re-estimation is needed because averaged statistics do not fit the averaged weights of networks
    that were trained separately.
    """
    model = copy.deepcopy(start)
    move_towards(floating_state(model), [floating_state(end)], [1.0], decay=1 - share)
    reestimate_batchnorm(model, batches)
    return model


def mixed(
    models: Sequence[nn.Module], shares: Sequence[float], batches: Iterable[Tensor]
) -> nn.Module:
    """A new network sum_k shares[k] * models[k], BatchNorm re-estimated as in ``interpolated``."""
    model = copy.deepcopy(models[0])
    move_towards(floating_state(model), list(map(floating_state, models)), shares, decay=0.0)
    reestimate_batchnorm(model, batches)
    return model


@torch.no_grad()
def reestimate_batchnorm(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set BatchNorm running statistics to the average over ``batches`` of clean images.

    Batches are weighted by their size. A batch with a single image, which has no variance in a 1x1
    map, is ignored unless it is the only one.

    The statistics of a network with averaged weights are not the average of the networks'
    statistics; SWA (Izmailov et al., 1803.05407, section 3.2) recomputes them by a pass over the
    training data. A model without BatchNorm layers stays unchanged.

    Raises:
        ValueError: there are no batches; the model stays unchanged.
    """
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    training = [(module, module.training) for module in model.modules()]
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        raise ValueError("BatchNorm re-estimation needs at least one batch of training images")
    try:
        model.eval()
        for layer in layers:
            layer.train()
            layer.reset_running_stats()
        with _uncut(layers):
            seen = 0
            for x in itertools.chain([first], batches):
                if seen and len(x) == 1:
                    continue
                seen += len(x)
                for layer in layers:
                    layer.momentum = len(x) / seen  # of the new batch: a running weighted mean
                model(x)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, flag in training:
            module.training = flag


@contextmanager
def _uncut(layers: Sequence[_BatchNorm]) -> Iterator[None]:
    """Inside, statistics are not summed over processes: each process gets all calibration images,
    not a part of them as in a training batch."""
    with ExitStack() as stack:
        for axis in {item.axis for item in layers if isinstance(item, SynchronisedBatchNorm2d)}:
            stack.enter_context(axis.whole())
        yield
