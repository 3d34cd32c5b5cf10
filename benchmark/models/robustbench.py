"""RobustBench 1.1.1 from PyPI, made importable.

It imports a package ``autoattack`` that is not on PyPI. The substitute, pyautoattack, has another
name and another signature.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pyautoattack
import pyautoattack.state
import torch
from torch import Tensor, nn

from benchmark.core.errors import BenchmarkError, ConfigError

_INSTALL = "pip install 'generalist-bench[robustbench]'"
_LOGGER = "auto-attack"


class AutoAttackShim(pyautoattack.AutoAttack):
    """pyautoattack under the signature of the original package, which RobustBench calls.

    Departure: seed None means 0, not the time of day, so that a result can be reproduced.

    Args:
        attacks_to_run: for ``version="custom"``.
        log_path: file to which the attacks' progress is added.
    """

    def __init__(
        self,
        model: nn.Module,
        norm: str = "Linf",
        eps: float = 0.3,
        seed: int | None = None,
        verbose: bool = True,
        attacks_to_run: Sequence[str] = (),
        version: str = "standard",
        is_tf_model: bool = False,
        device: torch.device | str = "cuda",
        log_path: str | Path | None = None,
    ) -> None:
        if is_tf_model:
            raise ConfigError("pyautoattack has no TensorFlow; give a PyTorch model")
        super().__init__(
            model,
            attacks=list(attacks_to_run) or None,
            device=device,
            eps=eps,
            norm=norm,
            seed=0 if seed is None else seed,
            version=version,
        )
        self.verbose = verbose
        self._log_path = log_path

    def run_standard_evaluation(
        self,
        x_orig: Tensor,
        y_orig: Tensor,
        bs: int = 250,
        return_labels: bool = False,
        state_path: Path | None = None,
    ) -> Any:
        """Adversarial examples [n, c, h, w] and, if asked, the labels [n] they are given.

        Raises:
            ConfigError: a ``state_path`` is given; neither library can resume from it.
        """
        if state_path is not None:
            raise ConfigError(
                "aa_state_path does not work in pyautoattack 0.2.0 and RobustBench 1.1.1; remove "
                "it (generalist-bench evaluate resumes after interruption)"
            )
        with _logged(self._log_path):
            x_adv, y_adv = super().run_standard_evaluation(x_orig, y_orig, batch_size=bs)
        return (x_adv, y_adv) if return_labels else x_adv


@contextmanager
def _logged(path: str | Path | None) -> Iterator[None]:
    """Inside, AutoAttack's messages are written to the file as well."""
    if path is None:
        yield
        return
    logger, handler = logging.getLogger(_LOGGER), logging.FileHandler(path)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()


def import_robustbench() -> ModuleType:
    """The module ``robustbench``. If the original ``autoattack`` is installed, it is used.

    Raises:
        BenchmarkError: not installed, not importable, or overwritten by another package.
    """
    if importlib.util.find_spec("robustbench") is None:
        raise BenchmarkError(f"robustbench is not installed; {_INSTALL}")
    if "autoattack" not in sys.modules and importlib.util.find_spec("autoattack") is None:
        module = ModuleType("autoattack", AutoAttackShim.__doc__)
        module.AutoAttack = AutoAttackShim  # type: ignore[attr-defined]
        module.state = pyautoattack.state  # type: ignore[attr-defined]
        sys.modules |= {"autoattack": module, "autoattack.state": pyautoattack.state}
    try:
        robustbench = importlib.import_module("robustbench")
    except ModuleNotFoundError as error:
        advice = "pip install 'setuptools<81'" if error.name == "pkg_resources" else _INSTALL
        raise BenchmarkError(f"robustbench needs the module {error.name}; {advice}") from error
    if not hasattr(robustbench, "benchmark"):
        raise BenchmarkError(
            "the installed robustbench has no benchmark(): torchattacks ships an old copy that "
            f"overwrites it; remove both, then {_INSTALL} in an environment without torchattacks"
        )
    return robustbench


def imagenet_files() -> frozenset[str]:
    """The validation images of RobustBench's ImageNet boards, as ``class/file``.

    Raises:
        BenchmarkError: see ``import_robustbench``.
    """
    folder = Path(str(import_robustbench().__file__)).parent
    text = (folder / "helper_files" / "imagenet_test_image_ids.txt").read_text(encoding="utf-8")
    return frozenset(text.split())
