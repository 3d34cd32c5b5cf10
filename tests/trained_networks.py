"""Small networks, trained for a moment."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from tiny_suites import tiny_data
from torch import nn

from benchmark.attacks import pgd
from benchmark.core.crafting import crafting
from benchmark.core.threat import ThreatModel
from benchmark.data.dataset import Split
from benchmark.models.config import ModelConfig
from benchmark.models.zoo import build_model

NETS = {
    "small-resnet": {"name": "small-resnet", "width": 8},
    "strided": {"name": "small-resnet", "width": 8, "stem_stride": 2},
    "resnet18-w16": {"name": "resnet18-w16"},
}


def train(
    model: nn.Module, robust: bool, steps: int = 60, mean: float = 0, std: float = 1
) -> nn.Module:
    """For a moment, on the training images of the digits, normalised outside the model."""
    split = tiny_data(None).train
    assert isinstance(split, Split)
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    threat = ThreatModel.model_validate({"eps": 0.1, "step": 0.07, "steps": 2})
    for _ in range(steps):
        rows = torch.randint(len(split), (48,))
        x, y = (split.images[rows].float() / 255 - mean) / std, split.labels[rows]
        if robust:
            with crafting(model):
                x = pgd(model, x, y, threat)
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_model(
        ModelConfig.model_validate(NETS[name]), num_classes=10, image_size=16,
        mean=(0.3,) * 3, std=(0.3,) * 3,
    )  # fmt: skip
