"""The models that adversarial training images are crafted on."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from benchmark.attacks.folding import Autocast, FoldedView
from benchmark.core.crafting import BatchNormMode
from benchmark.core.setting import CraftingView, PlainView


class _Folded:
    """A folded copy, brought up to date on entry (see ``FoldedView`` for what it buys)."""

    def __init__(self, model: nn.Module, bf16_on: str | None) -> None:
        self._view = FoldedView(model)
        self._model = Autocast(self._view, bf16_on) if bf16_on else self._view

    def __enter__(self) -> nn.Module:
        self._view.refresh()
        return self._model

    def __exit__(self, *details: object) -> None:
        return None


class _PlainAutocast(PlainView):
    def __init__(self, model: nn.Module, batchnorm: BatchNormMode, device_type: str) -> None:
        super().__init__(model, batchnorm)
        self._device_type = device_type

    def __enter__(self) -> nn.Module:
        return Autocast(super().__enter__(), self._device_type)


class Precision:
    """How training runs its networks: fp32, or bf16 autocast with fp32 weights."""

    def __init__(self, name: str, device: torch.device) -> None:
        self._bf16_on = device.type if name == "bf16" else None

    def view(self, model: nn.Module, batchnorm: BatchNormMode) -> CraftingView:
        """The model to craft on: a folded copy unless the attack uses the batch's statistics."""
        if batchnorm == "eval":
            return _Folded(model, self._bf16_on)
        if self._bf16_on:
            return _PlainAutocast(model, batchnorm, self._bf16_on)
        return PlainView(model, batchnorm)

    def autocast(self) -> AbstractContextManager[object]:
        """The context of the training forward pass."""
        return torch.autocast(self._bf16_on, torch.bfloat16) if self._bf16_on else nullcontext()
