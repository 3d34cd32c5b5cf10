"""torchvision's ResNets with the normalisation inside."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torchvision.models import resnet

from benchmark.models.normalization import Normalized

_FORMS = {
    "resnet18": (resnet.BasicBlock, [2, 2, 2, 2]),
    "resnet50": (resnet.Bottleneck, [3, 4, 6, 3]),
}


class ImageNetResNet(resnet.ResNet, Normalized):
    """torchvision's ResNet, its parameter names unchanged."""

    def forward(self, x: Tensor) -> Tensor:
        """Images [n, 3, h, w] in [0, 1] to logits [n, num_classes]."""
        return super().forward(self.normalize(x))


def torchvision_resnet(
    network: str,
    num_classes: int,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> ImageNetResNet:
    """``resnet18`` or ``resnet50`` (1512.03385), randomly initialised."""
    block, layers = _FORMS[network]
    model = ImageNetResNet(block, layers, num_classes=num_classes)
    model.set_normalization(mean, std)
    return model
