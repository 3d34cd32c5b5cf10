"""Reads the trained weights that a cell's method starts from or learns from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from benchmark.core.errors import CheckpointError, ConfigError
from benchmark.core.files import digest_path
from benchmark.core.hashing import file_digest
from benchmark.core.weights import Weights
from benchmark.models.normalization import NORMALIZATION
from benchmark.models.weights import load_weights, read_state_dict, recorded_options
from benchmark.records.files import RunFiles


class TrainedWeights:
    """Puts trained weights into networks.

    Args:
        needs: the folder of each run of the suite, by the name of its row.
        runs: the folder that contains these folders.

    Attributes:
        used: SHA-256 of every file that was read, by its name in the configuration.
    """

    def __init__(self, needs: Mapping[str, str], runs: Path) -> None:
        self._needs, self._runs = needs, runs
        self.used: dict[str, str] = {}

    def __call__(self, network: nn.Module, weights: Weights) -> None:
        """Put ``weights`` into ``network``.

        Raises:
            ConfigError: the file is missing or damaged, has changed since the configuration was
                read, or holds another network.
        """
        path = self._file(weights)
        place = f"{weights.method} ({path})" if weights.method else str(path)
        if not path.is_file():
            advice = "train that row first" if weights.method else "restore it, or name another"
            raise ConfigError(f"there are no trained weights of {place}; {advice}")
        digest = file_digest(path)
        if weights.sha256 not in (None, digest):
            raise ConfigError(
                f"{place} has changed since the run was planned (SHA-256 {digest[:12]}..., not "
                f"{str(weights.sha256)[:12]}...); restore it, or start a new run with it"
            )
        if weights.method and digest not in digest_path(path).read_text().split():
            raise ConfigError(f"{place} is damaged; delete that run's folder to train it again")
        try:
            state = read_state_dict(path, weights.key)
            load_weights(network, state, str(path))
        except CheckpointError as error:
            raise ConfigError(
                f"the weights of {place} cannot be used here: {error}. They must be those of one "
                "network for the same classes; if its architecture is not the suite's, give it: "
                "model: {name: ...} for a teacher, the learner's own model for a learner"
            ) from error
        own = set(NORMALIZATION) & network.state_dict().keys()
        if recorded_options(state) and not own <= state.keys():
            raise ConfigError(
                f"the weights of {place} were trained without a normalisation, but this network "
                "has one; set model.normalization to none, or name other weights"
            )
        self.used[weights.place] = digest

    def _file(self, weights: Weights) -> Path:
        if weights.method:
            return RunFiles(self._runs / self._needs[weights.method]).deployed
        if weights.path is None:
            raise ConfigError(
                f"the record does not contain the path of the weights (SHA-256 {weights.sha256}); "
                "start from the suite that names their file"
            )
        return Path(weights.path)


def left_fresh(network: nn.Module, weights: Weights) -> None:
    """Loads nothing; used instead of ``TrainedWeights`` when only a method's form is needed."""
