"""All random state of a run in one object, so that a resumed run is bit-identical."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch

from benchmark.core.draws import WholeBatchGenerator
from benchmark.core.mesh import DataAxis, Mesh
from benchmark.data.batches import seed_of


class RandomState:
    """Seeds, saves and restores every generator in use.

    Each learner has its own generator for the random draws of training (random starts, noise). The
    global generators are seeded and saved too, for code that uses them (dropout, plugins). The
    order and augmentation of images need no state: the loader derives them from seed, epoch and
    batch.

    Args:
        data: the processes that share every batch; they all draw the same numbers.
    """

    def __init__(self, seed: int, device: torch.device, data: DataAxis | None = None) -> None:
        self._seed, self._device, self._data = seed, device, data or DataAxis()
        self._generators: dict[int, WholeBatchGenerator] = {}
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)

    def generator(self, number: int = 0) -> WholeBatchGenerator:
        """The generator of learner ``number``; that of the first learner has the run's seed."""
        if number not in self._generators:
            generator = WholeBatchGenerator(device=self._device)
            generator.data = self._data
            generator.manual_seed(seed_of(self._seed, number) if number else self._seed)
            self._generators[number] = generator
        return self._generators[number]

    def share(self, mesh: Mesh, numbers: Collection[int]) -> None:
        """Update the generators of the learners that other processes train, that is, all but
        ``numbers``. All processes call this."""
        own = {n: self._generators[n].get_state() for n in numbers if n in self._generators}
        for number, state in mesh.union(own).items():
            self.generator(number).set_state(state)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers only, so that it can be loaded with ``weights_only``."""
        numpy = np.random.get_state(legacy=False)
        words = torch.tensor(numpy["state"]["key"].astype(np.int64))
        version, integers, gauss_next = random.getstate()
        state: dict[str, Any] = {
            "generators": {n: item.get_state() for n, item in self._generators.items()},
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
        """Restore what ``state_dict`` returned."""
        for number, saved in state["generators"].items():
            self.generator(number).set_state(saved.cpu())
        torch.set_rng_state(state["torch"].cpu())
        kind, keys, position, has_gauss, gauss = state["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
        version, words, gauss_next = state["python"]
        random.setstate((version, tuple(words), gauss_next))
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([item.cpu() for item in state["cuda"]])
