"""What is measured: one network on scikit-learn's digits, so that no files are needed. The time of
a pass does not depend on the content of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.config.suite import CellConfig, build_suite
from benchmark.core.errors import ConfigError
from benchmark.core.method import Batch, Method
from benchmark.core.precision import Precision
from benchmark.data import sources
from benchmark.data.dataset import Dataset, Split
from benchmark.data.loader import evaluation_batches
from benchmark.training.build import Length, build_method

# Networks above this many parameters are attacked on fewer images; overheads are measured in one
# step, and growth is not measured: the results would be those of small networks, at a hundred times
# the cost.
_SMALL = 1_000_000
_LARGE_EVALUATED = 64
# Long enough that there is no redistribution during the measurement.
_LENGTH = Length(steps=1_000_000, steps_per_epoch=1000, images=0)


@dataclass(frozen=True)
class Workload:
    """How much of everything is measured.

    Attributes:
        size: side of the images in pixels.
        steps: of the training attack.
        evaluated: images of PGD-20, at most.
        attacked, attacked_large: images of each of AutoAttack's parts, at most, on small and on
            large networks; theirs are
        part_steps, part_targets, part_queries: iterations, target classes and Square's queries. A
            pass costs the same in a short attack, and passes are what is compared.
        part_references: whether the parts are compared with other libraries too, or with the limit
            alone.
        trained: steps before the network is attacked.
    """

    size: int = 32
    steps: int = 10
    evaluated: int = 128
    attacked: int = 128
    attacked_large: int = 16
    part_steps: int = 10
    part_targets: int = 3
    part_queries: int = 100
    part_references: bool = True
    trained: int = 40


FULL = Workload()
QUICK = Workload(
    size=16, steps=2, evaluated=16, attacked=4, part_steps=3, part_queries=5, trained=10
)


class Bench:
    """One architecture, ready to be trained by any method.

    Args:
        batch_size: images per training step.

    Attributes:
        batch: the first training images, on the device.
        small: whether the network is small; large ones are measured less.
        evaluated, attacked: images of PGD-20, and of AutoAttack's parts.

    Raises:
        ConfigError: unknown model; more images asked for than there are.
    """

    def __init__(
        self,
        model: str,
        batch_size: int,
        precision: Precision,
        amount: Workload,
        device: torch.device,
    ) -> None:
        self.model, self.batch_size, self.precision = model, batch_size, precision
        self.amount, self.device = amount, device
        dataset = self.config("natural").dataset
        self.data: Dataset = sources.load(dataset, Path())
        self.batch = self.images(self.split("train"), batch_size)
        network = self.method("natural").deployed()
        self.small = sum(p.numel() for p in network.parameters()) < _SMALL
        self.evaluated = amount.evaluated if self.small else min(amount.evaluated, _LARGE_EVALUATED)
        self.attacked = min(
            self.evaluated, amount.attacked if self.small else amount.attacked_large
        )

    def config(self, recipe: str | Mapping[str, Any], batch_size: int | None = None) -> CellConfig:
        """The cell that trains by ``recipe``, a method's name or its settings."""
        threats = {name: {"steps": self.amount.steps} for name in ("linf", "l2", "l1")}
        suite = build_suite(
            {
                "name": "speed",
                "dataset": {"name": "digits", "size": self.amount.size},
                "model": {"name": self.model},
                "threats": threats,
                "train": {
                    "batch_size": batch_size or self.batch_size,
                    "precision": self.precision,
                    "epochs": 1,
                },
                "methods": [recipe],
            }
        )
        return suite.cells()[0].config

    def method(self, recipe: str | Mapping[str, Any]) -> Method:
        """The method, with freshly initialised learners."""
        generator = torch.Generator(device=self.device).manual_seed(0)
        config = self.config(recipe)
        return build_method(
            config, self.data, self.device, length=_LENGTH, generators=lambda _: generator
        )

    def split(self, name: str) -> Split:
        """``train`` or ``test`` images in memory."""
        split = getattr(self.data, name)
        assert isinstance(split, Split)
        return split

    def images(self, split: Split, count: int) -> Batch:
        """The first images, float32 [count, 3, s, s] in [0, 1] and channels_last, with labels."""
        if count > len(split):
            raise ConfigError(
                f"{count} images are asked for, and the digits have {len(split)} of that kind; "
                f"choose --batch-size {len(split)} or less"
            )
        (batch,) = evaluation_batches(split, count, indices=torch.arange(count), device=self.device)
        return batch[1], batch[2]

    def trained(self) -> nn.Module:
        """A network after ``amount.trained`` steps of natural training, in eval mode."""
        method = self.method("natural")
        order = torch.randperm(len(self.split("train")), generator=torch.Generator().manual_seed(0))
        for step in range(self.amount.trained):
            chosen = order.roll(-step * self.batch_size)[: self.batch_size]
            (batch,) = evaluation_batches(
                self.split("train"), self.batch_size, indices=chosen, device=self.device
            )
            method.update((batch[1], batch[2]), step / self.amount.trained)
        return method.deployed().eval()

    def predicted(self, model: nn.Module) -> tuple[Split, Tensor, Tensor]:
        """``evaluated`` test images with the labels that ``model`` gives them, so that all
        are right when clean: as a split, and as tensors."""
        split = self.split("test")
        x, _ = self.images(split, self.evaluated)
        with torch.no_grad():
            y = torch.cat([model(part).argmax(1) for part in x.split(self.batch_size)])
        return Split(split.images[: self.evaluated], y.cpu()), x, y
