"""Networks in the form of a model repository of the Hugging Face Hub: ``config.json`` and
``model.safetensors``, written by ``export`` and read as ``hf:PATH_OR_ID``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from benchmark.config.suite import CellConfig
from benchmark.core.config import Config, parse
from benchmark.core.errors import BenchmarkError, CheckpointError, ConfigError
from benchmark.core.files import read_json
from benchmark.core.hashing import tensors_hash
from benchmark.core.layout import lay_out
from benchmark.core.outside import is_outside
from benchmark.data.dataset import Dataset, Split
from benchmark.models.config import ModelConfig
from benchmark.models.zoo import build_model
from benchmark.training.build import build_method

PREFIX = "hf:"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
INSTALL = "pip install 'generalist-bench[hub]'"
# What a network must be told of the images that it was trained on.
_OF_IMAGES = ("name", "size", "channels", "class_order", "background", "white")


class HubConfig(Config):
    """``config.json``.

    Attributes:
        format: of this file.
        method: the row that the run was; hash: of its configuration; weights: of its network.
        classes: their names; image_size: in pixels; channels: of the images.
        model: the architecture; None for a network that several make, such as an ensemble, which
            the method of ``run`` builds.
        run: the configuration of the training, without the folders of files.
    """

    library_name: Literal["generalist-bench"]
    format: Literal[1]
    method: str
    hash: str
    weights: str
    classes: tuple[str, ...]
    image_size: int
    channels: Literal[1, 3]
    model: ModelConfig | None
    run: dict[str, Any]

    def network(self) -> nn.Module:
        """The network without its weights, on the CPU.

        Raises:
            ConfigError: it takes code that this installation does not have, or that came from the
                author of the run.
        """
        shape = (0, self.channels, self.image_size, self.image_size)
        nothing = Split(torch.empty(shape, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
        if self.model is not None:
            network = build_model(
                self.model,
                num_classes=len(self.classes),
                image_size=self.image_size,
                # the weights bring the statistics
                mean=(0.0,) * self.channels,
                std=(1.0,) * self.channels,
                channels=self.channels,
            )
            return lay_out(network)
        own = next((text for text in _texts(self.run.get("recipe")) if is_outside(text)), None)
        if own:
            raise ConfigError(
                f"the network is made by {own}, which is code of the run's author; it is not in "
                "the repository, and would not be run if it were"
            )
        data = Dataset("", nothing, nothing, nothing, self.classes, "", "")
        cell = parse(CellConfig, self.run, where=f"run of {CONFIG}")
        return build_method(cell, data, torch.device("cpu")).deployed()

    @property
    def images(self) -> dict[str, Any]:
        """Settings of the data set whose test images the network was made for."""
        dataset = self.run.get("dataset", {})
        return {key: dataset[key] for key in _OF_IMAGES if dataset.get(key) is not None}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


@dataclass(frozen=True)
class HubModel:
    """A repository that was read: its configuration, and its trained network in eval mode."""

    config: HubConfig
    network: nn.Module


def load_hub_model(spec: str) -> HubModel:
    """The network of ``hf:FOLDER`` or ``hf:OWNER/NAME`` (``@REVISION`` may follow). Nothing of the
    repository is run: it is a configuration and tensors.

    Raises:
        ConfigError: no such folder or repository, none of ours, or a package is missing.
        CheckpointError: damaged weights, or those of another network.
    """
    place = spec.removeprefix(PREFIX)
    path = Path(place).expanduser()
    folder = path if path.is_dir() else _downloaded(place)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ConfigError(
                f"{spec} has no {name}; give what `generalist-bench export RUN --hub` wrote"
            )
    config = read_config(folder / CONFIG)
    network = config.network()
    state = read_weights(folder / WEIGHTS)
    if tensors_hash(state) != config.weights:
        raise CheckpointError(
            f"{folder / WEIGHTS} is not what {CONFIG} states; download or export it again"
        )
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{spec} does not fit its configuration: {error}") from error
    return HubModel(config, network.eval())


def read_config(path: Path) -> HubConfig:
    """Raises ConfigError: of another library or another version."""
    content = read_json(path)
    known = isinstance(content, dict) and content.get("library_name") == "generalist-bench"
    if not known:
        raise ConfigError(
            f"{path} is not of generalist-bench; other networks of the Hub are evaluated by a "
            "factory, see docs/model.md"
        )
    return parse(HubConfig, content, where=str(path))


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in a file of safetensors.

    Raises:
        ConfigError: safetensors is missing. CheckpointError: a damaged file.
    """
    try:
        from safetensors import SafetensorError  # noqa: PLC0415 - an optional extra
        from safetensors.torch import load_file  # noqa: PLC0415 - the same
    except ImportError as error:
        raise ConfigError(f"{path} needs the safetensors package: {INSTALL}") from error
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}); download or export it again"
        ) from error


def _downloaded(place: str) -> Path:
    """The two files of a repository, from the cache where they are there."""
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415 - an optional extra
        from huggingface_hub.errors import HFValidationError  # noqa: PLC0415 - the same
    except ImportError as error:
        raise ConfigError(
            f"{PREFIX}{place} is no folder here, and a repository of the Hub needs the "
            f"huggingface_hub package: {INSTALL}"
        ) from error
    name, _, revision = place.partition("@")
    try:
        return Path(
            snapshot_download(name, revision=revision or None, allow_patterns=[CONFIG, WEIGHTS])
        )
    except HFValidationError as error:
        raise ConfigError(
            f"{PREFIX}{place}: there is no such folder, and a repository is written OWNER/NAME"
        ) from error
    except Exception as error:  # of the network, the Hub or the disk
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise BenchmarkError(
            f"{PREFIX}{place} is no folder here and cannot be had from the Hub ({line[:200]}); "
            "check its name and your connection, and log in (hf auth login) if it is private"
        ) from error
