"""Architectures for images of any size whose activation is an option: ``model.activation``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, TypeAlias

import torch.nn.functional as F
from pydantic import SerializerFunctionWrapHandler, field_validator, model_serializer
from torch import Tensor, nn

from benchmark.models.architecture import Architecture, ArchitectureOptions, Call, input_channels

ActivationName: TypeAlias = Literal["relu", "swish"]

# Swish (1710.05941) is x * sigmoid(x); torch calls it SiLU.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "swish": F.silu}


# The options of published networks whose files do not state them.
USUAL: Mapping[str, Any] = {"activation": "relu"}


class ActivationOptions(ArchitectureOptions):
    """Options of networks of which there are published versions with ReLU and with Swish.

    Attributes:
        activation: ``relu``, or ``swish`` (``silu`` is the same).
    """

    activation: ActivationName = "relu"

    @field_validator("activation", mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        return "swish" if value == "silu" else value

    @model_serializer(mode="wrap")
    def _leave_out_unused(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later options that are off, so that hashes of earlier records stay the same."""
        data = default(self)
        if self.activation == "relu":
            data.pop("activation", None)
        return data


def activation_argument(activation: str) -> dict[str, str]:
    """The argument ``activation`` of this repository's networks, which is left out for ReLU."""
    return {} if activation == "relu" else {"activation": activation}


def of_any_size(description: str, network: Callable[..., nn.Module], **form: Any) -> Architecture:
    """The architecture of a network that ends in global pooling and therefore takes images of any
    size. Its option is the activation."""

    def call(
        num_classes: int,
        *,
        image_size: int,
        channels: int,
        activation: str,
        mean: Any = None,
        std: Any = None,
    ) -> Call:
        further = {**input_channels(channels), **activation_argument(activation)}
        return partial(network, num_classes, **form, mean=mean, std=std, **further)

    return Architecture(description, call, options=ActivationOptions, usual=USUAL)
