"""BatchNorm with the statistics of the whole batch, when several processes share a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmark.core.mesh import DataAxis


class _Sum(torch.autograd.Function):
    """The sum over the axis. The loss of every process depends on it, so its gradient is the sum of
    the gradients of all processes."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, axis: DataAxis) -> Tensor:
        ctx.axis = axis
        total = tensor.clone()
        axis.sum_([total])
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone()
        ctx.axis.sum_([total])
        return total, None


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d``, but in training the statistics are those of the whole batch, over all
    processes (with ``train.accumulate``: those of a turn, over all processes).

    torch's ``SyncBatchNorm`` works on accelerators only. Every process of the axis must make the
    same forward and backward passes.
    """

    axis: DataAxis

    def forward(self, x: Tensor) -> Tensor:
        """As ``nn.BatchNorm2d`` on the whole batch; x [b, c, h, w]."""
        if not (self.training and self.axis.cut):
            return super().forward(x)
        count = self.axis.present * x.shape[2] * x.shape[3]
        values = x.float() if x.dtype.itemsize < 4 else x  # sums in bf16 would be inexact
        mean = _Sum.apply(values.sum((0, 2, 3)), self.axis) / count
        centred = values - mean[:, None, None]
        var = _Sum.apply(centred.square().sum((0, 2, 3)), self.axis) / count
        if self.track_running_stats:
            self._follow(mean.detach(), var.detach() * (count / (count - 1)))
        scale = (var + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        out = centred * scale[:, None, None]
        if self.bias is not None:
            out = out + self.bias[:, None, None]
        return out.to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = self.momentum
        if momentum is None:  # a plain mean over all batches
            momentum = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var, momentum)


def synchronise_batchnorm(model: nn.Module, axis: DataAxis) -> nn.Module:
    """Turn the BatchNorm2d layers of ``model`` into synchronised ones, in place. Tensors and their
    names stay the same."""
    for layer in model.modules():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = SynchronisedBatchNorm2d
            layer.axis = axis  # type: ignore[assignment]
    return model
