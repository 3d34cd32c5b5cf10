"""Weights of trained networks, from which a learner starts or from which a method learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from benchmark.core.config import Config


class Weights(Config):
    """Trained weights: a path, or ``{method: LABEL}`` for a run of the same suite.

    Attributes:
        path: folder of a trained run, whose deployed network is used, or a checkpoint file;
            relative to the working directory. It is not recorded: the content identifies the file.
        method: instead of ``path``: the name of a row of the same suite, with the same seed. That
            row is trained first.
        key: the place of the weights in a checkpoint that holds several.
        sha256: SHA-256 of the file that ``path`` refers to. It is filled in when a suite is read; a
            given one is compared with the file's.
    """

    path: str | None = Field(default=None, exclude=True)
    method: str | None = None
    key: str | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any, info: ValidationInfo) -> Any:
        """If the context has a function ``weights`` (see ``config.trained``), it finds the file of
        a mapping with a path. Without a context, the mapping comes from a record."""
        data = {"path": data} if isinstance(data, str) else data
        find = (info.context or {}).get("weights")
        if find and isinstance(data, Mapping) and isinstance(data.get("path"), str):
            return find(data, with_model="model" in cls.model_fields)
        return data

    @model_validator(mode="after")
    def _check(self) -> Weights:
        if self.path is not None and self.method is not None:
            raise ValueError("weights come from a path or from a method; remove one of them")
        if self.path is None and self.method is None and self.sha256 is None:
            raise ValueError(
                "write the path of a trained run or of a checkpoint, or {method: LABEL} for a run "
                "of the same suite"
            )
        return self

    @model_serializer(mode="wrap")
    def _leave_out_unused(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in default(self).items() if value is not None}

    @property
    def place(self) -> str:
        """Its name in messages and records."""
        return self.method or self.path or f"sha256 {self.sha256}"


class TrainedNetwork(Weights):
    """A trained network that a method learns from or is built of; frozen, in eval mode.

    Attributes:
        path, method, key, sha256: see ``Weights``.
        model: its architecture, as under a suite's ``model``. Default: that of the run at ``path``;
            for a checkpoint or a row of the suite, the suite's.
    """

    model: dict[str, Any] | None = None
