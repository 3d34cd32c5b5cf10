"""Training, evaluation and resuming on a CUDA device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_suites import cli, tiny_cell, tiny_data, write_suite

from benchmark.training.loop import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
METHODS = ["natural", "pgd-at", "trades", "output-ensemble", "weight-interpolation", "generalist-t"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_suite_on_cuda(precision: str, tmp_path: Path) -> None:
    autoattack = {"kind": "autoattack", "name": "aa_linf", "norm": "linf", "eps": 0.1, "n": 4}
    suite = write_suite(tmp_path, methods=METHODS, evaluation=[{"kind": "clean"}, autoattack])
    out = tmp_path / "out"
    options = ("--device", "cuda", "--precision", precision, "--out", out)
    called = cli("run", suite, *options)
    assert called.status == 0, called.err
    for cell in (out / "cells").iterdir():
        assert json.loads((cell / "environment.json").read_text())["device"] == "cuda"
        assert set(json.loads((cell / "evaluation.json").read_text())["metrics"]) == {
            "clean", "aa_linf"
        }  # fmt: skip
    # The same weights, evaluated on the CPU: rounding may move an image on the decision boundary.
    cuda = {p.parent.name: p.read_text() for p in out.glob("cells/*/evaluation.json")}
    for path in out.glob("cells/*/evaluation.json"):
        path.unlink()
    assert cli("evaluate", out, "--device", "cpu", "--metric", "clean").status == 0
    for slug, text in cuda.items():
        there = json.loads(text)["metrics"]["clean"]["correct"]
        record = json.loads((out / "cells" / slug / "evaluation.json").read_text())
        assert abs(there - record["metrics"]["clean"]["correct"]) <= 1


def test_training_goes_on_where_it_was(tmp_path: Path) -> None:
    """Sums on a GPU are not reproducible to the bit; the random draws and the step are."""
    cell, device = tiny_cell(methods=["generalist-d"]), torch.device("cuda")
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    Trainer(cell.config, tiny_data(), tmp_path / "whole", device=device).run()
    trainer = Trainer(cell.config, tiny_data(), tmp_path / "cut", device=device)
    update, calls = trainer.method.update, 0

    def stopped(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls > 5:
            raise KeyboardInterrupt
        return update(*arguments)  # type: ignore[arg-type]

    trainer.method.update = stopped  # type: ignore[assignment, method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    Trainer(cell.config, tiny_data(), tmp_path / "cut", device=device).run()
    whole, cut = (torch.load(tmp_path / name / "deployed.pt") for name in ("whole", "cut"))
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=1e-2, atol=1e-3)
