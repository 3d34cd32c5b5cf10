"""All random state of a run in one object, so that a killed run goes on bit by bit."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


class RandomState:
    """Seeds, saves and restores every generator in use.

    Training draws (random starts, noise) come from ``generator``; the global generators are
    seeded and saved too, for code that uses them (dropout, plugins). The order and augmentation of
    images needs no state: the loader derives it from seed, epoch and batch.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.generator = torch.Generator(device=device)
        self.generator.manual_seed(seed)
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers only, so that it can be loaded with ``weights_only``."""
        numpy = np.random.get_state(legacy=False)
        words = torch.tensor(numpy["state"]["key"].astype(np.int64))
        version, integers, gauss_next = random.getstate()
        state: dict[str, Any] = {
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "numpy": [
                numpy["bit_generator"],
                words,
                numpy["state"]["pos"],
                numpy["has_gauss"],
                numpy["gauss"],
            ],
            "python": [version, list(integers), gauss_next],
        }
        if torch.cuda.is_available():
            state["cuda"] = torch.cuda.get_rng_state_all()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.generator.set_state(state["generator"].cpu())
        torch.set_rng_state(state["torch"].cpu())
        kind, keys, position, has_gauss, gauss = state["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
        version, words, gauss_next = state["python"]
        random.setstate((version, tuple(words), gauss_next))
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([item.cpu() for item in state["cuda"]])
