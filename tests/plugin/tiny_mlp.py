"""A perceptron of a few layers: an architecture in a package of its own."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from benchmark.models.architecture import Architecture, ArchitectureOptions, Call
from benchmark.models.normalization import Normalized


class TinyMLP(Normalized):
    """``depth`` hidden layers of 32 units."""

    def __init__(
        self,
        num_classes: int,
        *,
        inputs: int,
        depth: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.set_normalization(mean, std)
        widths = [inputs, *[32] * depth]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(nn.Flatten(), *layers, nn.Linear(32, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.normalize(x))


class TinyMLPOptions(ArchitectureOptions):
    """``depth``: number of hidden layers."""

    depth: int = Field(default=1, ge=1, le=9)


def tiny_mlp(num_classes: int, *, image_size: int, channels: int, **options: Any) -> Call:
    """``options``: depth, and the mean and std of the normalisation."""
    return partial(TinyMLP, num_classes, inputs=channels * image_size**2, **options)


TINY_MLP = Architecture(
    "perceptron with hidden layers of 32 units; depth of them, 1 unless given",
    tiny_mlp,
    options=TinyMLPOptions,
)
