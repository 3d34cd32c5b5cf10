"""Crafting on a compiled network: chosen by measurement, recorded, kept when training resumes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_suites import Stopped, result_of, stop_after, tiny_cell, tiny_data
from torch import Tensor, nn

from benchmark.attacks.pgd import input_gradient
from benchmark.core.errors import ConfigError
from benchmark.training import compiling
from benchmark.training.loop import Trainer

CPU = torch.device("cpu")


def compiler(seconds: float = 0.0, failure: str = "") -> Callable[..., Any]:
    """In place of torch.compile, which takes a minute: the network itself, so many seconds slower."""

    def compiled(model: nn.Module, **options: Any) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            if failure:
                raise RuntimeError(failure)
            time.sleep(seconds)
            logits: Tensor = model(x)
            return logits

        return run

    return compiled


def trainer(run: Path, crafting: str, **more: Any) -> Trainer:
    cell = tiny_cell(train={"crafting": crafting}, **more)
    run.mkdir(exist_ok=True)
    return Trainer(cell.config, tiny_data(), run, device=CPU)


def crafting_of(run: Path) -> dict[str, Any] | None:
    found: dict[str, Any] | None = json.loads((run / "training.json").read_text()).get("crafting")
    return found


@pytest.fixture
def slow_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes of the eager network seem to take 10 ms, those of the compiled one 1 ms."""
    monkeypatch.setattr(torch, "compile", compiler())
    monkeypatch.setattr(
        compiling,
        "_milliseconds",
        lambda view, x: 1.0 if isinstance(view.__enter__(), compiling.Compiled) else 10.0,
    )


def test_a_faster_compiled_network_is_used_and_recorded(slow_eager: None, tmp_path: Path) -> None:
    """The stand-in gives the same numbers, so the weights are those of eager crafting."""
    for crafting in ("eager", "fastest"):
        trainer(tmp_path / crafting, crafting).run()
    assert crafting_of(tmp_path / "eager") is None
    assert crafting_of(tmp_path / "fastest") == {
        "chosen": "compiled", "eager_ms": 10.0, "compiled_ms": 1.0,
    }  # fmt: skip
    one, other = (result_of(tmp_path / name)["weights"] for name in ("eager", "fastest"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_training_is_crafted_on_it(slow_eager: None, tmp_path: Path) -> None:
    """Protects: a choice that is recorded but not followed."""
    passes = []
    original = compiling.Compiled.forward

    def counted(self: compiling.Compiled, x: Tensor) -> Tensor:
        passes.append(len(x))
        return original(self, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiling.Compiled, "forward", counted)
        trainer(tmp_path / "run", "fastest").run()
    # 10 steps, 2 of attack; 64 images are batches of 20, 20, 20 and 4
    assert len(passes) == 2 * 10
    assert set(passes) == {20, 4}


def test_a_slower_one_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch, "compile", compiler(seconds=0.05))
    made = trainer(tmp_path / "run", "fastest")
    made.run()
    found = crafting_of(tmp_path / "run")
    assert found is not None
    assert found["chosen"] == "eager"
    assert found["compiled_ms"] > found["eager_ms"] > 0


def test_a_slower_one_is_used_and_recorded_where_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Protects: a record that names the faster one, which was not used."""
    monkeypatch.setattr(torch, "compile", compiler(seconds=0.05))
    made = trainer(tmp_path / "run", "compiled")
    made.run()
    found = crafting_of(tmp_path / "run")
    assert found is not None
    assert found["compiled_ms"] > found["eager_ms"]
    assert found["chosen"] == "compiled"
    with made.method.learners["pgd-at"].view as model:
        assert isinstance(model, compiling.Compiled)


def test_where_nothing_can_be_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``fastest`` goes on and says why; ``compiled`` is refused before the first step."""
    monkeypatch.setattr(torch, "compile", compiler(failure="no C++ compiler\nand more"))
    trainer(tmp_path / "run", "fastest").run()
    found = crafting_of(tmp_path / "run")
    assert found is not None
    assert found["failure"] == "RuntimeError: no C++ compiler"
    with pytest.raises(ConfigError, match=r"cannot be compiled here \(RuntimeError: no C\+\+ comp"):
        trainer(tmp_path / "other", "compiled").run()
    assert not (tmp_path / "other" / "metrics.jsonl").exists()


def test_a_training_that_resumes_is_not_measured_again(
    slow_eager: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Protects: another choice after an interruption, and with it other weights."""
    stopped = trainer(tmp_path / "run", "fastest")
    stop_after(stopped, 7)
    with pytest.raises(Stopped):
        stopped.run()
    monkeypatch.setattr(compiling, "_milliseconds", lambda view, x: pytest.fail("measured again"))
    resumed = trainer(tmp_path / "run", "fastest")
    resumed.run()
    found = crafting_of(tmp_path / "run")
    assert found is not None
    assert found["chosen"] == "compiled"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_the_real_compiler_gives_the_same_gradients() -> None:
    """Up to rounding."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
    x = torch.rand(4, 3, 8, 8)
    gradients = [
        input_gradient(model, x, lambda logits: logits[:, 0].sum())
        for model in (network, compiling.Compiled(network))
    ]
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)
