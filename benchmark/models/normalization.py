"""Input normalisation inside the network, so that every attack works on pixels in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Buffers of a network that normalises its images.
NORMALIZATION = ("mu", "sigma")


class Normalized(nn.Module):
    """Base of networks that take pixels in [0, 1] and normalise them themselves.

    With ``mean`` and ``std`` the network owns buffers ``mu`` and ``sigma`` of shape [1, c, 1, 1],
    the names RobustBench's normalised networks use; without, it has no such buffers.
    """

    mu: Tensor | None
    sigma: Tensor | None

    def set_normalization(
        self,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        *,
        persistent: bool = True,
    ) -> None:
        """Register the buffers; ``persistent=False`` keeps them out of the state dict."""
        for name, values in zip(NORMALIZATION, (mean, std), strict=True):
            buffer = None if values is None else torch.tensor(values).view(1, -1, 1, 1)
            self.register_buffer(name, buffer, persistent=persistent)

    def normalize(self, x: Tensor) -> Tensor:
        """``(x - mu) / sigma``, or ``x`` itself. Shape [n, c, h, w]."""
        if self.mu is None or self.sigma is None:
            return x
        return (x - self.mu) / self.sigma
