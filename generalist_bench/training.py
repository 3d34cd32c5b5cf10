"""``train``: trains a network by a method on a data set."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from benchmark.commands.evaluate import evaluate_runs
from benchmark.commands.panels import Eps
from benchmark.commands.run import pick_device, run_suite
from benchmark.commands.train import training_suite, with_earlier
from benchmark.core.errors import ConfigError, DivergenceError
from benchmark.core.files import data_folder
from benchmark.core.generators import generators_kept
from benchmark.core.objective import METHODS
from benchmark.core.outside import pinned_to_source
from benchmark.core.progress import Progress
from benchmark.data import sources
from benchmark.data.dataset import Split
from benchmark.data.given import given_source, in_8_bits, split_of
from benchmark.data.source import DATASETS
from benchmark.models.architecture import MODELS
from benchmark.models.given import given_architecture
from benchmark.records.files import SuiteFiles
from benchmark.records.schema import read_training
from benchmark.records.study import read_cell
from benchmark.training.selection import load_deployed
from generalist_bench._words import in_python_words
from generalist_bench.evaluation import METRICS, Asked, Result, read_result, request_for


@dataclass(frozen=True)
class _Lent:
    """Objects that were given in Python instead of by name, and the names they get."""

    dataset: tuple[str, Any] | None
    network: tuple[str, Any] | None

    @contextmanager
    def known(self) -> Iterator[None]:
        """Inside, the registries contain these names."""
        with ExitStack() as stack:
            if self.dataset:
                stack.enter_context(DATASETS.lent(*self.dataset))
            if self.network:
                stack.enter_context(MODELS.lent(*self.network))
            yield


@dataclass(frozen=True)
class Run:
    """A trained network and its record.

    Attributes:
        network: the deployed network, in eval mode: maps images in [0, 1] to logits.
        folder: the run's folder; without ``out`` a temporary one, deleted with this object.
        method: its name in tables; seed: the seed of the training.
        training: the content of ``training.json``: steps, cost, the chosen checkpoint.
        curves: losses and validation accuracies, a row per epoch and validation.
    """

    network: nn.Module
    folder: Path
    method: str
    seed: int
    training: Mapping[str, Any]
    curves: pd.DataFrame
    _lent: _Lent = field(repr=False)
    _has_test: bool = field(repr=False)
    _dataset: str = field(repr=False)
    _data_root: Path = field(repr=False)
    _device: torch.device = field(repr=False)
    _kept: Any = field(repr=False)

    def evaluate(
        self,
        *,
        metrics: Asked = METRICS,
        eps: Eps | None = None,
        n: int | None = None,
        n_aa: int | None = None,
        seed: int = 0,
        batch_size: int = 256,
        quiet: bool = False,
    ) -> Result:
        """Measure the network on the test images of the data set that it was trained on.

        The figures are recorded in the run's folder; for the arguments see ``evaluate``.

        Raises:
            ConfigError, DataError: see ``evaluate``; no test images were given.
        """
        if not self._has_test:
            raise ConfigError(
                "no test images were given; give them to train(..., test=...), or measure on "
                "other images by evaluate(run.network, x, y)"
            )
        progress = Progress(quiet)
        with in_python_words(), self._lent.known(), generators_kept():
            request = request_for(
                metrics, eps, n, n_aa, seed, batch_size, self._device, self._data_root, progress,
                self._dataset,
            )  # fmt: skip
            evaluate_runs([self.folder], request)
        return read_result(self.folder, self.folder)


def train(
    method: str | Mapping[str, Any] | type,
    dataset: Any,
    network: str | nn.Module | Callable[..., nn.Module],
    *,
    epochs: float | None = None,
    eps: str | float | None = None,
    seed: int = 0,
    test: Any = None,
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    device: str = "auto",
    log: str | Sequence[str] = (),
    quiet: bool = False,
) -> Run:
    """Train a network by a method, and return it in eval mode.

    With ``out``, several methods and seeds on the same data make one study, which ``load`` reads. A
    run that is finished there is not trained again, and an interrupted one is resumed.

    Args:
        method: a name (``generalist-bench list methods``), ``my_file.py:MyMethod``, a class, or a
            mapping of a name and hyper-parameters: ``{"name": "trades", "beta": 3}``.
        dataset: a name (``generalist-bench list datasets``); a torch ``Dataset`` or a Hugging Face
            ``datasets.Dataset``; or a pair (images, labels). Training images are rounded to 8 bits.
        network: an architecture by name (``generalist-bench list models``); a network, of which a
            copy is trained; or a function that makes one.
        epochs: passes over the training images; default: 30.
        eps: training radius under l_inf; default: 8/255. Use ``settings`` for other norms.
        seed: seed of weights, order of images and attacks.
        test: test images for ``Run.evaluate``, in the forms of ``dataset``, if that is not a name.
        settings: any other settings of a suite, such as
            ``{"train": {"batch_size": 64}, "optimizer": {"lr": 0.05}}``. By default, images that
            are not given by name are not flipped and, below 32 pixels, not cropped;
            ``{"dataset": {"flip": True, "crop": 2}}`` changes that.
        out: a folder for the study; without it, the record is deleted with the run.
        data_root: folder that holds data sets by name; default: that of GENERALIST_BENCH_DATA, else
            ``data``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        log: ``tensorboard``, ``wandb`` or ``mlflow``, or several: the run is shown there too.
        quiet: show no progress.

    Raises:
        ConfigError: an unknown name or setting. DataError: data that cannot be used.
        DivergenceError: the loss is not finite, or has exploded.

    >>> import generalist_bench as gb
    >>> small = {"train": {"batch_size": 32}, "dataset": {"limit": 64}}
    >>> run = gb.train("natural", "digits", "small-resnet", epochs=1, settings=small, quiet=True)
    >>> run.network.training, run.training["steps"]
    (False, 2)
    >>> run.evaluate(metrics=["clean"], quiet=True).table()["n"].item()
    64
    """
    progress = Progress(quiet)
    lent = _Lent(_given_data(dataset, test, progress), _given_net(network))
    named = _named(method) if isinstance(method, type) else method
    data_name = lent.dataset[0] if lent.dataset else dataset
    net_name = lent.network[0] if lent.network else str(network)
    kept = tempfile.TemporaryDirectory() if out is None else None
    folder = Path(kept.name if kept else str(out))
    root = data_folder(data_root)
    with in_python_words(), lent.known(), generators_kept():
        suite = training_suite(
            data_name, net_name, [named], [seed], (), settings, epochs=epochs, eps=eps
        )
        chosen = pick_device(device)
        diverged = run_suite(
            suite,
            with_earlier(suite, folder),
            folder,
            data_root=root,
            device=chosen,
            progress=progress,
            evaluate=False,
            log=[log] if isinstance(log, str) else log,
        )
        if diverged:
            raise DivergenceError(diverged[0])
        (cell,) = suite.cells()
        directory = SuiteFiles(folder).cell(cell.slug)
        data = sources.load(cell.config.dataset, root)
        deployed = load_deployed(cell.config, data, directory, chosen)
    return Run(
        network=deployed,
        folder=directory,
        method=cell.label,
        seed=seed,
        training=read_training(directory),
        curves=read_cell(directory).curves,
        _lent=lent,
        _has_test=len(data.test) > 0,
        _dataset=data_name,
        _data_root=root,
        _device=chosen,
        _kept=kept,
    )


def _named(method: type) -> str:
    """The name of a class in records. It stays registered, for further trainings in the same
    study."""
    name = pinned_to_source(method)
    # when a notebook's cell is run again, it makes an equal class anew
    METHODS.register(name, method, replace=True)
    return name


def _given_net(network: Any) -> tuple[str, Any] | None:
    if isinstance(network, str):
        return None
    if not callable(network):
        raise ConfigError(
            f"network is a {type(network).__name__}; give a name, a torch.nn.Module or a function "
            "that makes one"
        )
    return given_architecture(network)


def _given_data(dataset: Any, test: Any, progress: Progress) -> tuple[str, Any] | None:
    if isinstance(dataset, str):
        if test is not None:
            raise ConfigError(f"{dataset} has its own test images; remove test")
        return None
    images, names = split_of(dataset, where="dataset", progress=progress)
    images = in_8_bits(images)
    if test is None:
        held: Split = images.take(torch.arange(0))
    else:
        held, more = split_of(test, where="test", progress=progress)
        names = names or more
    count = int(max(images.labels.max(), held.labels.max() if len(held) else 0)) + 1
    classes = names or tuple(map(str, range(count)))
    return given_source(images, held, classes, "images in memory")
