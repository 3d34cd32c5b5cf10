"""Wide residual networks (1605.07146), in the form of TRADES and RobustBench.

Submodules are named as in RobustBench's ``architectures/wide_resnet.py``.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from benchmark.models.activation import ACTIVATIONS, ActivationName, of_any_size
from benchmark.models.normalization import Normalized
from benchmark.models.resnet import conv, pooled


class WideBlock(nn.Module):
    """BN-ReLU-conv-BN-ReLU-conv, added to the input; a projection starts after BN-ReLU.

    ``activation`` replaces ReLU.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int, activation: str = "relu"
    ) -> None:
        super().__init__()
        self.act = ACTIVATIONS[activation]
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv(in_channels, channels, stride=stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels)
        self.convShortcut: nn.Conv2d | None = None
        # RobustBench projects only if the number of channels changes, not for a stride of 2.
        if in_channels != channels:
            self.convShortcut = conv(in_channels, channels, kernel=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.bn1(x))
        if self.convShortcut is not None:
            x = self.convShortcut(out)
        return self.conv2(self.act(self.bn2(self.conv1(out)))) + x


class WideResNet(Normalized):
    """WRN with three stages of ``blocks`` blocks and ``16 * widen`` to ``64 * widen`` channels.

    The depth counts 6 * blocks + 4 layers: 28 has 4 blocks per stage and 34 has 5. Madry et al.
    (1706.06083) count 6 * blocks + 2, so their WRN-32-10 also has 5 blocks per stage.

    The code of TRADES (1901.08573) builds a second copy of the first stage that it never uses, and
    some of RobustBench's checkpoints hold its weights under ``sub_block1``. The copy is not built
    here; loading ignores those keys, so both kinds of checkpoint pass a strict load.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        blocks: int,
        widen: int = 10,
        activation: ActivationName = "relu",
        in_channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.set_normalization(mean, std)
        self.act = ACTIVATIONS[activation]
        self.conv1 = conv(in_channels, 16)
        in_channels = 16
        for stage in range(3):
            channels = 16 * widen * 2**stage
            layer = nn.Sequential()
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                layer.append(WideBlock(in_channels, channels, stride, activation))
                in_channels = channels
            # The extra level "layer" is part of the names in checkpoints.
            self.add_module(f"block{stage + 1}", nn.Sequential(OrderedDict(layer=layer)))
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.fc = nn.Linear(in_channels, num_classes)
        self._initialize()
        self.register_load_state_dict_pre_hook(_drop_unused_stage)

    def _initialize(self) -> None:
        """Normal with variance 2 / fan-out for convolutions, zero bias for the classifier."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images [n, 3, h, w] in [0, 1] to logits [n, num_classes]."""
        x = self.conv1(self.normalize(x))
        for stage in range(3):
            x = self.get_submodule(f"block{stage + 1}")(x)
        return self.fc(pooled(self.act(self.bn1(x))))


def _drop_unused_stage(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for key in [key for key in state if key.startswith(f"{prefix}sub_block1.")]:
        del state[key]


WRN_28_10 = of_any_size("WideResNet-28-10, 36.48 M", WideResNet, blocks=4)
WRN_32_10 = of_any_size(
    "WideResNet-32-10 in Madry's counting (the tensors of wrn-34-10), 46.16 M",
    WideResNet,
    blocks=5,
)
WRN_34_10 = of_any_size("WideResNet-34-10, 46.16 M", WideResNet, blocks=5)
