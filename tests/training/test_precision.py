"""TF32 is for the steps of training alone, and only where there is TF32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_suites import tiny_cell, tiny_data

from benchmark.core.errors import ConfigError
from benchmark.training.build import build_method
from benchmark.training.loop import Trainer
from benchmark.training.views import ModelPrecision


def test_tf32_is_on_inside_a_step_only() -> None:
    """Also when the step fails; fp32 and bf16 leave the switches alone."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    with pytest.raises(RuntimeError), ModelPrecision("tf32", torch.device("cuda")).kernels():
        assert matmul.allow_tf32
        assert cudnn.allow_tf32
        raise RuntimeError
    assert (matmul.allow_tf32, cudnn.allow_tf32) == before
    for name in ("fp32", "bf16"):
        with ModelPrecision(name, torch.device("cuda")).kernels():
            assert (matmul.allow_tf32, cudnn.allow_tf32) == before


def test_tf32_needs_cuda_to_train_but_not_to_evaluate(tmp_path: Path) -> None:
    """A network that was trained so on a GPU can be evaluated on a CPU."""
    cell = tiny_cell(train={"precision": "tf32"})
    cpu, data = torch.device("cpu"), tiny_data()
    with pytest.raises(ConfigError, match="tf32 is for CUDA devices"):
        Trainer(cell.config, data, tmp_path, device=cpu)
    assert build_method(cell.config, data, cpu).deployed() is not None
