"""The precisions in which networks are evaluated and attacked."""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "bf16"]
