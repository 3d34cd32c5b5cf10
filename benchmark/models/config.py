"""What a user may say about a model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from benchmark.core.config import Config
from benchmark.core.registry import did_you_mean
from benchmark.models.zoo import MODELS

Channels = tuple[float, float, float] | tuple[float]  # of colour or of grey images


class Normalization(Config):
    """Mean and standard deviation per channel, of pixels in [0, 1]."""

    mean: Channels
    std: Channels

    @model_validator(mode="after")
    def _check_range(self) -> Normalization:
        if len(self.mean) != len(self.std):
            raise ValueError("mean and std need one value per channel each")
        if not all(0 <= value <= 1 for value in self.mean):
            raise ValueError(f"mean = {list(self.mean)}: pixels are in [0, 1]; divide by 255?")
        if not all(0 < value <= 1 for value in self.std):
            raise ValueError(f"std = {list(self.std)}: each must be in (0, 1]; divide by 255?")
        return self


class ModelConfig(Config):
    """An architecture and its options.

    Attributes:
        name: a name of ``benchmark.models.zoo.MODELS``.
        width: channels of the first stage; small-resnet only, 16 unless given.
        stem_stride: stride of the first convolution; small-resnet only. Default: 2 from 32x32
            pixels on, 1 below.
        normalization: ``none`` (pixels in [0, 1] go straight in, as in the released Generalist
            code), ``dataset`` (the statistics of the data set) or written out.
    """

    name: str = "resnet18"
    width: int | None = Field(default=None, ge=1)
    stem_stride: Literal[1, 2] | None = None
    normalization: Literal["none", "dataset"] | Normalization = "none"

    @model_validator(mode="after")
    def _check_options(self) -> ModelConfig:
        if self.name not in MODELS:
            raise ValueError(
                f"unknown model {self.name!r}; {did_you_mean(self.name, MODELS.names())}"
            )
        architecture = MODELS.get(self.name)
        for option in ("width", "stem_stride"):
            if getattr(self, option) is not None and option not in architecture.options:
                takers = [name for name, item in MODELS.items() if option in item.options]
                raise ValueError(f"{option} is fixed in {self.name}; only {takers} take it")
        if architecture.normalizes_itself and self.normalization != "none":
            raise ValueError(f"{self.name} has its own normalisation; leave normalization at none")
        return self
