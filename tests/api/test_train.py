"""``gb.train`` and ``gb.load``: what is given by name and what is given in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from tiny_suites import cli, tiny_data
from torch import Tensor, nn

import generalist_bench as gb
from benchmark.core.errors import BenchmarkError, ConfigError
from benchmark.core.objective import Objective, Step
from benchmark.data.dataset import Split

SHORT: dict[str, Any] = {"train": {"batch_size": 32, "validations": 1, "validation_images": 20}}
NAMED: dict[str, Any] = {**SHORT, "dataset": {"limit": 64}, "model": {"width": 8}}


class Own(Objective):
    """A method of a notebook: CE(f(x), y) on noisy images (1706.06083 without the attack)."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        return (x + 0.1 * torch.randn(x.shape, generator=step.generator)).clamp(0, 1)

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, step: Step) -> Tensor:
        return F.cross_entropy(model(x_adv), y)

    @property
    def crafting_passes(self) -> float:
        return 0


def make_net(num_classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, num_classes))


def halves() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    data = tiny_data()
    assert isinstance(data.train, Split)
    assert isinstance(data.test, Split)
    return tuple((split.images.float() / 255, split.labels) for split in (data.train, data.test))  # type: ignore[return-value]


def test_everything_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network, images and a class of one's own: nothing is left but the run, and the network that
    was given is as it was."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    net = make_net()
    before = [weight.clone() for weight in net.parameters()]
    images, test = halves()
    run = gb.train(Own, images, net, epochs=2, test=test, settings=SHORT, quiet=True)
    assert list(tmp_path.iterdir()) == []
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    trained = [weight for name, weight in run.network.named_parameters()]
    assert [weight.shape for weight in trained] == [weight.shape for weight in before]
    assert not any(torch.equal(a, b) for a, b in zip(before, trained, strict=True))
    assert (run.network.training, run.method, len(run.curves)) == (False, "Own", 2)

    measured = run.evaluate(metrics=["clean"], quiet=True)
    again = gb.evaluate(run.network, *test, metrics=["clean"], quiet=True)
    assert measured.outcomes["clean"].tolist() == again.outcomes["clean"].tolist()
    folder = run.folder
    assert folder.is_dir()
    del run
    assert not folder.exists()

    untested = gb.train("natural", images, make_net, epochs=1, settings=SHORT, quiet=True)
    with pytest.raises(
        ConfigError, match=r"no test images were given; give them to train\(..., te"
    ):
        untested.evaluate()


def test_a_study_of_several_methods(tmp_path: Path) -> None:
    """Protects: a run that leaves the study when the next one is trained there; a run that is
    trained again, or not again although its network or data are others."""
    out = tmp_path / "study"
    for method in ({"name": "trades", "beta": 3, "label": "trades-3"}, "natural", Own, "natural"):
        run = gb.train(
            method, "digits", "small-resnet", epochs=1, settings=NAMED, out=out, quiet=True
        )
        run.evaluate(metrics=["clean", "pgd20_linf"], eps="8/255", quiet=True)
    study = gb.load(out)
    assert study.methods == ["trades-3", "natural", "Own"]
    assert len(list((out / "cells").iterdir())) == 3
    config = json.loads((run.folder / "config.json").read_text())["config"]
    assert config["train"]["epochs"] == 1
    table = study.table()
    assert set(table["metric"]) == {"clean", "pgd20_linf"}
    assert (table["low"] <= table["value"]).all()
    assert "20 steps" in table.set_index("metric").loc["pgd20_linf", "settings"].iloc[0]
    compared = study.compare("trades-3", "Own")
    assert compared["metric"].tolist() == ["clean", "pgd20_linf"]
    assert compared["n"].tolist() == [64, 64]
    printed = cli("report", out)  # of what was trained in Python
    assert "trades-3" in printed.out

    for seed in (0, 1):
        torch.manual_seed(seed)
        images, _ = halves()
        run = gb.train(
            "natural",
            images,
            make_net(),
            epochs=1,
            settings=SHORT,
            out=tmp_path / "own",
            quiet=True,
        )
    assert len(list((tmp_path / "own" / "cells").iterdir())) == 2
    refused = cli("evaluate", run.folder, "--metric", "clean", "-q")
    assert refused.status == 2
    assert "was given in Python and is in no file; give it again" in refused.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trade", "digits", "small-resnet"), "unknown method 'trade'; did you mean 'trades'"),
        (("natural", "digit", "small-resnet"), "unknown dataset 'digit'; did you mean 'digits'?"),
        (("natural", "digits", "small-restnet"), "unknown model 'small-restnet'; did you mean"),
        (("natural", "digits", 3), "network is a int; give a name, a torch.nn.Module or a function"),
        (("natural", "digits", make_net(3)), "to [2, 3], but training needs logits [n, 10]"),
        (("seed-ensemble", "digits", make_net()), "give a function that makes it"),
    ],
)  # fmt: skip
def test_mistakes_are_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(BenchmarkError) as raised:
        gb.train(*arguments, epochs=1, settings={**SHORT, "dataset": {"limit": 64}}, quiet=True)
    assert message in str(raised.value)


@pytest.mark.figures
def test_fronts_and_plots_of_a_study(small_out: Path, tmp_path: Path) -> None:
    study = gb.load(small_out)
    every = study.front()
    assert set(every["method"]) == {"natural", "pgd-at", "joint", "generalist-d"}
    assert set(every["front"]) == {"all"}
    best = every.loc[[every["clean"].idxmax(), every["robust"].idxmax()]]
    assert best["on_hull"].all()
    assert every["hypervolume"].isna().all()
    two = study.front({"own": ["generalist-d"], "others": ["natural", "pgd-at"]})
    volumes = two.set_index("method")
    assert volumes.loc["natural", "hypervolume"] == volumes.loc["pgd-at", "hypervolume"]
    assert (two["hypervolume_low"] <= two["hypervolume"]).all()
    with pytest.raises(BenchmarkError, match="unknown method 'pdg-at'; did you mean 'pgd-at'"):
        study.front({"own": ["pdg-at"], "others": ["natural"]})
    with pytest.raises(BenchmarkError, match="name two or more"):
        study.front({"own": ["generalist-d"]})

    fig = Figure(figsize=(8, 4))
    left, right = fig.subplots(1, 2)
    assert study.plot_tradeoff(right) is right
    assert not left.has_data()
    words = {text.get_text() for text in right.texts}
    assert {"pgd-at", "generalist-d"} <= words
    fig.savefig(tmp_path / "figure.svg")  # a canvas that has no renderer of its own
    with pytest.raises(BenchmarkError, match="unknown metric 'clean'"):
        study.plot_tradeoff(right, metric="clean")
    mpl.use("agg")
    assert study.plot_tradeoff().get_xlabel() == "Clean accuracy (%)"
    assert "<table" in study._repr_html_()
    assert "pgd-at" in repr(study)


def test_a_study_without_figures_says_how_to_get_them(tmp_path: Path) -> None:
    gb.train("natural", "digits", "small-resnet", epochs=1, settings=NAMED, out=tmp_path / "one",
             quiet=True)  # fmt: skip
    study = gb.load(tmp_path / "one")
    with pytest.raises(BenchmarkError, match="generalist-bench evaluate"):
        study.table()
    assert "nothing has been evaluated" in study._repr_html_()


def test_comparisons_are_seed_by_seed(small_out: Path) -> None:
    study = gb.load(small_out)
    compared = study.compare("natural", "pgd-at")
    assert set(compared["seed"]) == {0, 1}
    assert {row.n for row in compared.itertuples() if row.metric == "clean"} == {200}
    with pytest.raises(BenchmarkError, match="unknown method 'pgdat'; did you mean 'pgd-at'"):
        study.compare("natural", "pgdat")
