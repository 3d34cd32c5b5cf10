"""Fingerprints of tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch


def tensors_hash(state: Mapping[str, torch.Tensor]) -> str:
    """Sixteen hexadecimal digits over the names, types, shapes and values of tensors."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
