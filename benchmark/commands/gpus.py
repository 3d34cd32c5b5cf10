"""The speed that a GPU is assumed to sustain, to estimate the time of a plan without that GPU."""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.core.errors import ConfigError
from benchmark.core.registry import did_you_mean


@dataclass(frozen=True)
class Gpu:
    """A card, by its data sheet: dense peaks in 10^12 operations per second.

    Attributes:
        memory: GB.
        fp32: peak outside of tensor cores.
        tf32, bf16: peak in tensor cores, with sums in fp32; equal to ``fp32`` if the card has no
            tensor cores for the precision.
    """

    memory: int
    fp32: float
    tf32: float
    bf16: float


GPUS = {
    "t4": Gpu(16, 8.1, 8.1, 8.1),
    "v100": Gpu(16, 15.7, 15.7, 15.7),
    "rtx3090": Gpu(24, 35.6, 35.6, 71),
    "a10": Gpu(24, 31.2, 62.5, 125),
    "l4": Gpu(24, 30.3, 60, 121),
    "rtx4090": Gpu(24, 82.6, 82.6, 165),
    "l40s": Gpu(48, 91.6, 183, 362),
    "a100": Gpu(40, 19.5, 156, 312),
    "h100": Gpu(80, 67, 495, 989),
    "h200": Gpu(141, 67, 495, 989),
}
# The share of the peak that convolutions of ResNets are assumed to sustain. No card was measured;
# ``speed`` measures the share of a card (docs/gpu.md).
ASSUMED_SHARE = {"fp32": 0.5, "tf32": 0.2, "bf16": 0.2}


@dataclass(frozen=True)
class Sustained:
    """What an assumed GPU sustains, in 10^12 operations per second.

    Attributes:
        name: of the GPU, for people.
        training: in the suite's precision; evaluation: in fp32.
    """

    name: str
    training: float
    evaluation: float

    def __str__(self) -> str:
        if self.training == self.evaluation:
            return f"{self.name} of {self.training:g} TFLOP/s, sustained"
        return (
            f"{self.name} with {self.training:.3g} TFLOP/s in training and "
            f"{self.evaluation:.3g} in evaluation, sustained"
        )


def sustained(device_name: str | None, tflops: float | None, precision: str) -> Sustained | None:
    """What the options ``--device-name`` and ``--tflops`` assume; None without both.

    Args:
        precision: of training.

    Raises:
        ConfigError: an unknown card, or both options.
    """
    if device_name and tflops:
        raise ConfigError("--device-name and --tflops both give a speed; remove one of them")
    if tflops:
        return Sustained("a GPU", tflops, tflops)
    if not device_name:
        return None
    name = device_name.lower().replace("-", "").replace(" ", "")
    if name not in GPUS:
        raise ConfigError(
            f"unknown --device-name {device_name!r}; {did_you_mean(name, GPUS)}. For another card, "
            "give the speed that it sustains by --tflops"
        )
    gpu = GPUS[name]
    peak = {"fp32": gpu.fp32, "tf32": gpu.tf32, "bf16": gpu.bf16}[precision]
    # without tensor cores for it, a precision runs as fp32 does
    share = ASSUMED_SHARE["fp32" if peak == gpu.fp32 else precision]
    return Sustained(name, peak * share, gpu.fp32 * ASSUMED_SHARE["fp32"])
