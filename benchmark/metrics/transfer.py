"""Accuracy on images that were crafted on another network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from benchmark.attacks.folding import folded_if_same
from benchmark.attacks.pgd import is_right, pgd
from benchmark.core.config import Config, config_hash
from benchmark.core.crafting import crafting
from benchmark.core.errors import ConfigError
from benchmark.core.files import at_home
from benchmark.core.hashing import tensors_hash
from benchmark.core.registry import did_you_mean
from benchmark.core.threat import NormName, Pixels, ThreatModel
from benchmark.metrics.attacked import pgd_title, pgd_words
from benchmark.metrics.metric import FORWARD, Context, Measured, Metric, Setup
from benchmark.records.files import RunFiles


class TransferSource(Config):
    """The network that images are crafted on: a path, or ``{method: LABEL}``.

    Attributes:
        path: folder of a trained run, whose deployed network is used; or a file with a network or
            its weights; relative to the working directory.
        method: instead of ``path``: the name of a row of the same study, with the same seed.
        model: architecture of weights in a file, as ``evaluate-model`` takes it.
    """

    path: str | None = None
    method: str | None = None
    model: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: Any) -> Any:
        return {"path": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _check(self) -> TransferSource:
        if bool(self.path) == bool(self.method):
            raise ValueError(
                "write the path of a trained run or of a checkpoint, or {method: LABEL} for a run "
                "of the same study"
            )
        if self.method and self.model:
            raise ValueError("model is for weights in a file; leave it out beside a method")
        return self

    @property
    def label(self) -> str:
        """What names call it: the method's label, or the last part of the path."""
        return self.method or Path(str(self.path)).name


class Transfer(Metric):
    """Accuracy on images crafted on another network, the source, by PGD (1605.07277, 1706.06083).

    An image counts as right if it is right without attack and with the perturbation of the last
    iterate. Every image is attacked, from a start that depends only on the seed, so that all
    networks are measured on the same crafted images. The source is attacked in eval mode.

    If images crafted on another network fool a network more often than PGD on the network itself,
    its gradients mislead attacks.

    Attributes:
        source: the network that the images are crafted on.
        threat: of the attack.
    """

    kind: Literal["transfer"] = "transfer"
    source: TransferSource
    threat: ThreatModel

    count_option = "--n-pgd"

    @property
    def base_name(self) -> str:
        """Such as transfer20_linf_from_pgd-at."""
        source = self.source.label.replace("/", "-")
        return f"transfer{self.threat.steps}_{self.threat.norm}_from_{source}"

    @property
    def base_title(self) -> str:
        """Such as PGD-20 from pgd-at."""
        return f"{pgd_title(self.threat)} from {self.source.label}"

    @property
    def ball(self) -> tuple[NormName, Pixels]:
        """See ``Metric.ball``."""
        return self.threat.norm, self.threat.eps

    @property
    def needs(self) -> tuple[str, ...]:
        """See ``Metric.needs``."""
        return (self.source.method,) if self.source.method else ()

    def check(self, setup: Setup) -> None:
        """See ``Metric.check``; the source is loaded, unless it is a row that is to be trained.

        Raises:
            ConfigError: there is no such run or file, or it is no network for these images.
            CheckpointError: its weights are damaged or of another network.
        """
        method = self.source.method
        if method and method not in setup.runs:
            near = did_you_mean(method, setup.runs) if setup.runs else "here is no study"
            raise ConfigError(
                f"{self.name}: the study has no row {method!r} with this seed; {near}"
            )
        if method and not RunFiles(setup.runs[method]).training.exists():
            return
        network = self._network(setup)
        _, x, _ = next(setup.batches(torch.arange(min(2, len(setup.data.test)))))
        try:
            with crafting(network), torch.no_grad():
                found = tuple(network(x).shape)
        except RuntimeError as error:
            raise ConfigError(
                f"{self.name}: its source fails on images of {setup.data.name} ({error}); choose a "
                "network for these images"
            ) from error
        if found != (len(x), setup.data.num_classes):
            raise ConfigError(
                f"{self.name}: its source tells {found[-1]} classes, and {setup.data.name} has "
                f"{setup.data.num_classes}; choose a network for these images"
            )

    def _network(self, setup: Setup) -> nn.Module:
        own = self.source
        place = setup.runs[own.method] if own.method else at_home(Path(str(own.path)))
        key = ("network", place.resolve(), own.model)
        return setup.cached(key, lambda: setup.network(place, own.model))

    def images_of(self, setup: Setup, record: Mapping[str, Any], images: str) -> str:
        """See ``Metric.images_of``: the test images, and the weights they are crafted on."""
        return config_hash({"images": images, "source": self._weights(setup)})

    def _weights(self, setup: Setup) -> str:
        return tensors_hash(self._network(setup).state_dict())

    def measure(self, context: Context) -> Measured:
        """See ``Metric.measure``."""
        setup, indices = context.setup, self.indices(context.setup)
        source = self._network(setup)
        generator = torch.Generator(device=setup.device).manual_seed(self.seed)
        outcomes: list[Tensor] = []
        crafted_on: nn.Module | None = None
        with (
            crafting(context.model),
            crafting(source),
            setup.progress.task(context.label(self), len(indices)) as task,
        ):
            for _, x, y in setup.batches(indices):
                crafted_on = crafted_on or folded_if_same(source, x)
                x_adv = pgd(crafted_on, x, y, self.threat, generator=generator)
                with torch.no_grad():
                    right = [is_right(context.model(images), y) for images in (x, x_adv)]
                outcomes.append((right[0] & right[1]).cpu())
                task.advance(len(y))
        detail = {
            "threat": self.threat.model_dump(mode="json"),
            "source": self.source.method or self.source.path,
            "source_weights": self._weights(setup),
        }
        return self.whole(indices, torch.cat(outcomes), detail)

    def passes(self, images: int) -> float:
        """The steps of the attack, and two forward passes."""
        return self.count(images) * (self.threat.steps + 2 * FORWARD)

    def describe(self, detail: Mapping[str, Any]) -> str:
        """See ``Metric.describe``."""
        return f"images crafted on {self.source.label}, {pgd_words(self.threat)}, seed {self.seed}"
