"""The models on which adversarial training images are crafted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from benchmark.attacks.folding import Autocast, FoldedView
from benchmark.core.crafting import BatchNormMode
from benchmark.core.setting import CraftingView, PlainView
from benchmark.training.compiling import Compiled


class _Folded:
    """A folded copy, updated on entry (see ``FoldedView`` for why it is faster)."""

    def __init__(self, model: nn.Module, precision: ModelPrecision, bf16_on: str | None) -> None:
        self._view = FoldedView(model)
        self._model = Autocast(self._view, bf16_on) if bf16_on else self._view
        self._precision = precision
        self._compiled: Compiled | None = None

    def __enter__(self) -> nn.Module:
        self._view.refresh()
        if not self._precision.compiled:
            return self._model
        if self._compiled is None:
            self._compiled = Compiled(self._model)
        return self._compiled

    def __exit__(self, *details: object) -> None:
        return None


class _PlainAutocast(PlainView):
    def __init__(self, model: nn.Module, batchnorm: BatchNormMode, device_type: str) -> None:
        super().__init__(model, batchnorm)
        self._device_type = device_type

    def __enter__(self) -> nn.Module:
        return Autocast(super().__enter__(), self._device_type)


class ModelPrecision:
    """How training runs its networks: fp32, TF32 kernels, or bf16 autocast with fp32 weights.

    Attributes:
        compiled: whether views in eval mode are compiled; it can change at any time.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.compiled = False
        self._bf16_on = device.type if name == "bf16" else None
        self._tf32 = name == "tf32"

    def view(self, model: nn.Module, batchnorm: BatchNormMode) -> CraftingView:
        """The model to craft on: a folded copy unless the attack uses the batch's statistics."""
        if batchnorm == "eval":
            return _Folded(model, self, self._bf16_on)
        if self._bf16_on:
            return _PlainAutocast(model, batchnorm, self._bf16_on)
        return PlainView(model, batchnorm)

    @contextmanager
    def kernels(self) -> Iterator[None]:
        """The context of a whole step, backward passes included. Evaluation happens outside of it
        and stays in exact fp32."""
        if not self._tf32:
            yield
            return
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        before = matmul.allow_tf32, cudnn.allow_tf32
        matmul.allow_tf32 = cudnn.allow_tf32 = True
        try:
            yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before

    def autocast(self) -> AbstractContextManager[object]:
        """The context of the training forward pass."""
        return torch.autocast(self._bf16_on, torch.bfloat16) if self._bf16_on else nullcontext()
