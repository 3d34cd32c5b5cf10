"""The parts of a cell's training: its length, its networks and method, its processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.config.suite import CellConfig, TrainConfig
from benchmark.core.batchnorm import synchronise_batchnorm
from benchmark.core.config import parse
from benchmark.core.errors import ConfigError
from benchmark.core.layout import lay_out
from benchmark.core.mesh import Mesh, connect, layout
from benchmark.core.method import Method, trained_weights
from benchmark.core.ranks import Ranks
from benchmark.core.setting import CraftingView, Setting
from benchmark.core.weights import Weights
from benchmark.data.batches import batch_bounds, full_bounds
from benchmark.data.dataset import Dataset
from benchmark.data.loader import evaluation_batches
from benchmark.data.source import DatasetConfig
from benchmark.metrics.outcomes import sample
from benchmark.models.architecture import MODELS
from benchmark.models.config import ModelConfig
from benchmark.models.zoo import build_model
from benchmark.training.compiling import measure
from benchmark.training.trained import TrainedWeights, left_fresh
from benchmark.training.views import ModelPrecision

# Number of clean training images for re-estimating BatchNorm statistics.
_CALIBRATION_IMAGES = 4096


@dataclass(frozen=True)
class Length:
    """The length of a training.

    Attributes:
        steps: optimiser steps of the whole training.
        steps_per_epoch: optimiser steps in one epoch.
        images: training images over all steps; an image that is used in two epochs counts twice.
    """

    steps: int
    steps_per_epoch: int
    images: int


def training_length(train: TrainConfig, dataset: DatasetConfig, images: int) -> Length:
    """The length of training with the settings ``train`` on ``images`` training images.

    Raises:
        ConfigError: less than one step; a batch size above the number of images (except under
            ``limit``, for smoke tests, where an epoch is then one smaller batch); see
            ``full_bounds``.
    """
    if train.batch_size > images and dataset.limit is None:
        raise ConfigError(
            f"train.batch_size = {train.batch_size} is more than the {images} training images; "
            f"set train.batch_size to {images} or less"
        )
    if dataset.extra is None:
        bounds = batch_bounds(images, train.batch_size)
    else:
        bounds, _ = full_bounds(images, train.batch_size, dataset.extra.share)
    sizes = [stop - start for start, stop in bounds]
    wanted = train.epochs * len(sizes)
    if wanted < 1 - 1e-9:
        raise ConfigError(
            f"train.epochs = {train.epochs:g} is less than one step; an epoch has {len(sizes)}, so "
            f"set train.epochs to {1 / len(sizes):.2g} or more"
        )
    steps = round(wanted)
    epochs, rest = divmod(steps, len(sizes))
    return Length(steps, len(sizes), epochs * sum(sizes) + sum(sizes[:rest]))


def cell_length(config: CellConfig, images: int) -> Length:
    """The length of a cell's training: see ``training_length``; one step if the method is not
    trained."""
    length = training_length(config.train, config.dataset, images)
    if config.recipe.training_free:
        return Length(1, length.steps_per_epoch, min(config.train.batch_size, images))
    return length


def build_method(
    config: CellConfig,
    data: Dataset,
    device: torch.device,
    *,
    length: Length | None = None,
    generators: Callable[[int], torch.Generator] | None = None,
    mesh: Mesh | None = None,
    load: Callable[[nn.Module, Weights], None] = left_fresh,
    precision: ModelPrecision | None = None,
) -> Method:
    """The method of a cell, with initial weights that depend only on the cell's seed.

    Args:
        length: length of the training; None if the method will not be trained here, because it is
            built to load weights into it or to inspect its networks.
        generators: generators of the random draws made while training, by number of the learner.
        mesh: the processes that train together; None for one process.
        load: puts trained weights into a network, for a method that starts from trained weights or
            learns from a trained network. Default: nothing is loaded, which is enough for a method
            that will not be trained here.
        precision: how the networks run; default: by ``train.precision``.

    Raises:
        ConfigError: see ``TrainedWeights``; ``train.accumulate`` is set for a method whose batches
            cannot be divided.
    """
    mesh = mesh or Mesh()

    def new_model(init: int = 0, model: Mapping[str, Any] | None = None) -> nn.Module:
        return _build_network(config, data, device, mesh, init, model)

    precision = precision or ModelPrecision(config.train.precision, device)
    method = config.recipe.build(
        Setting(
            new_model=new_model,
            total_steps=length.steps if length else 1,
            steps_per_epoch=length.steps_per_epoch if length else 1,
            generator=generators(0) if generators else None,
            generators=generators,
            calibration=lambda: calibration_batches(data, config.train.batch_size, device),
            held_out=lambda: held_out_batches(data, config.train, device),
            crafting_view=precision.view,
            autocast=precision.autocast,
            load=load,
            mesh=mesh,
            accumulate=config.train.accumulate,
        )
    )
    if config.train.accumulate > 1 and not (method.accumulates and method.cuttable):
        raise ConfigError(
            f"train.accumulate = {config.train.accumulate}: {config.recipe.name} cannot divide its "
            "batches; set it to 1, and lower train.batch_size if memory is short"
        )
    return method


def check_trained(config: CellConfig, data: Dataset) -> None:
    """Check that the trained weights whose files a cell names fit its networks.

    Raises:
        ConfigError: see ``TrainedWeights``.
    """
    load = TrainedWeights({}, Path())
    for weights, model in trained_weights(config.recipe):
        if weights.path:
            load(_build_network(config, data, torch.device("cpu"), Mesh(), 0, model), weights)


def measure_crafting(
    config: CellConfig, data: Dataset, device: torch.device
) -> dict[str, str | float]:
    """Whether to compile the suite's network for crafting; see ``compiling.measure``."""
    precision = ModelPrecision(config.train.precision, device)
    network = suite_network(config, data, device)
    n, (channels, side) = config.train.batch_size, (data.channels, data.image_size)
    x = torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0)).to(device)

    def view(compiled: bool) -> CraftingView:
        precision.compiled = compiled
        return precision.view(network, "eval")

    with precision.kernels():
        return measure(view, x)


def suite_network(config: CellConfig, data: Dataset, device: torch.device) -> nn.Module:
    """A network of the suite's architecture, with fresh weights."""
    return _build_network(config, data, device, Mesh(), 0, None)


def _build_network(
    config: CellConfig,
    data: Dataset,
    device: torch.device,
    mesh: Mesh,
    init: int,
    model: Mapping[str, Any] | None,
) -> nn.Module:
    """A network with fresh weights; for ``init`` and ``model`` see ``Setting.new_model``."""
    # Loaded weights contain their own statistics, so a data set without training images needs none.
    mean, std = (0.0,) * data.channels, (1.0,) * data.channels
    if len(data.train):
        mean, std = data.mean, data.std
    described = config.model if model is None else parse(ModelConfig, model, where="learner.model")
    if init and MODELS.get(described.name).one_start:
        raise ConfigError(
            f"{config.recipe.name} needs networks with different initial weights, but one network "
            "was given; give a function that makes it"
        )
    with torch.random.fork_rng(devices=[]):
        # The factor is far larger than usual seeds, so that further initialisations of one seed
        # (init 1, 2, ...) do not repeat the first initialisation of another seed.
        torch.manual_seed(config.seed + 1_000_003 * init)
        network = build_model(
            described,
            num_classes=data.num_classes,
            image_size=data.image_size,
            mean=mean,
            std=std,
            channels=data.channels,
        )
    if mesh.data.size > 1 and mesh.data.statistics == "synchronised":
        network = synchronise_batchnorm(network, mesh.data)
    return lay_out(network.to(device))


def calibration_batches(data: Dataset, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Clean training images for re-estimating BatchNorm statistics; the same at every call."""
    indices = sample(len(data.train), _CALIBRATION_IMAGES, seed=0)
    for _, x, _ in evaluation_batches(data.train, batch_size, indices=indices, device=device):
        yield x


def held_out_batches(
    data: Dataset, train: TrainConfig, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """The images on which validation measures accuracy, and their labels."""
    indices = sample(len(data.val), train.validation_images, seed=0)
    size = max(256, train.batch_size)
    for _, x, y in evaluation_batches(data.val, size, indices=indices, device=device):
        yield x, y


def connect_processes(
    config: CellConfig, data: Dataset, device: torch.device, ranks: Ranks, groups: int | None
) -> Mesh:
    """The processes that train a cell together, in a layout that its method allows.

    Args:
        groups: how many groups of processes share the learners; None chooses a fast layout.

    Raises:
        ConfigError: see ``core.mesh.layout``; ``groups`` given to a single process.
    """
    if ranks.world == 1:
        if groups not in (None, 1):
            raise ConfigError("--learner-groups is for several processes: start with torchrun")
        return Mesh()
    # The layout depends on properties of the method, so a method is built to read them.
    method = build_method(config, data, torch.device("cpu"))
    grid = layout(
        ranks.world,
        {name: learner.passes for name, learner in method.learners.items()},
        independent_learners=method.independent_learners,
        cuttable=method.cuttable,
        groups=groups,
    )
    return connect(ranks, grid, device, config.train.batchnorm)
