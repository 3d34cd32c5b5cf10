"""Planted defences are found by name; honest models raise nothing."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from short_attacks import shorten
from tiny_suites import tiny, tiny_data
from torch import Tensor, nn
from trained_networks import NETS, build, train

from benchmark.config.suite import build_suite
from benchmark.data.dataset import Split
from benchmark.evaluation.evaluator import Evaluator
from benchmark.evaluation.reliability import Finding, check


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    split = tiny_data(None).test
    assert isinstance(split, Split)
    return split.images[:64].float() / 255, split.labels[:64]


class MLP(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(768, 64), nn.ReLU(), nn.Linear(64, 10))


class Attention(nn.Module):
    """LayerNorm and attention over rows: no BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(48, 32)
        self.block = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 1, 3).flatten(2)
        return self.head(self.block(self.embed(rows)).mean(1))


@pytest.fixture(scope="module")
def honest() -> nn.Module:
    return train(build("small-resnet"), robust=True)


def names(findings: list[Finding]) -> set[str]:
    return {finding.name for finding in findings}


HONEST = [(net, robust) for net in (*NETS, "mlp", "attention") for robust in (False, True)]


@pytest.mark.parametrize(("net", "robust"), HONEST)
def test_honest_models_raise_nothing(net: str, robust: bool, images: tuple[Tensor, Tensor]) -> None:
    """Ten of them: natural and robust, convolutional, dense and with attention."""
    torch.manual_seed(0)
    model = {"mlp": MLP, "attention": Attention}.get(net, lambda: build(net))()
    model = train(model, robust, steps={"mlp": 120, "attention": 400}.get(net, 40))
    x, y = images
    assert float((model(x).argmax(1) == y).float().mean()) > 0.5
    assert check(model, x, y) == []


class Defence(nn.Module):
    """A defence around an honest model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class LogitsTimes1e4(Defence):
    def forward(self, x: Tensor) -> Tensor:
        return 1e4 * self.model(x)


class QuantisedInput(Defence):
    def forward(self, x: Tensor) -> Tensor:
        return self.model((x * 4).round() / 4)


class LargeNoise(Defence):
    def forward(self, x: Tensor) -> Tensor:
        return self.model(x + 0.1 * torch.randn_like(x))


class SmallNoise(Defence):
    def forward(self, x: Tensor) -> Tensor:
        return self.model(x + 0.002 * torch.randn_like(x))


class DetachedLogits(Defence):
    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).detach() + 0 * x.sum()


class NoGradient(Defence):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model(x)


class RoundedLogits(Defence):
    def forward(self, x: Tensor) -> Tensor:
        return (2 * self.model(x)).round() / 2


class Softmax(Defence):
    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).softmax(1)


class OneHot(Defence):
    def forward(self, x: Tensor) -> Tensor:
        return F.one_hot(self.model(x).argmax(1), 10).float()


class GradientInForward(Defence):
    """Moves the image to where the model is surer of itself, then classifies it."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            probe = x.detach().requires_grad_()
            loss = self.model(probe).logsumexp(1).sum()
            (grad,) = torch.autograd.grad(loss, probe)
        return self.model(x + 0.01 * grad.sign())


class BackwardInForward(Defence):
    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            probe = x.detach().requires_grad_()
            self.model(probe).logsumexp(1).sum().backward()
            assert probe.grad is not None
        return self.model(x + 0.01 * probe.grad.sign())


class TrainModeBatchNorm(Defence):
    """eval() does not reach the layers."""

    def train(self, mode: bool = True) -> TrainModeBatchNorm:
        self.model.train()
        self.training = mode
        return self


class BatchStatistics(Defence):
    """BatchNorm in eval mode by its flag, but normalised by the batch."""

    def forward(self, x: Tensor) -> Tensor:
        x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)
        return self.model((0.3 * x + 0.2).clamp(0, 1))


class DropoutLeftOn(Defence):
    """Two of our own: dropout that stays on ..."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.model(x), 0.2, training=True)


class Remembers(Defence):
    """... and a model that changes with what it has seen."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return self.model(x)


class Shattered(Defence):
    """A third: gradients of a fine saw-tooth point nowhere."""

    def forward(self, x: Tensor) -> Tensor:
        return self.model((x + 0.03 * torch.sin(3000 * x)).clamp(0, 1))


class WantsNormalised(Defence):
    def forward(self, x: Tensor) -> Tensor:
        return self.model((0.5 * x + 0.5).clamp(0, 1))


PLANTED = [
    (LogitsTimes1e4, {"logit-scale"}),
    (QuantisedInput, {"zero-gradient"}),
    (LargeNoise, {"random"}),
    (SmallNoise, {"random"}),
    (DetachedLogits, {"zero-gradient"}),
    (NoGradient, {"no-gradient"}),
    (RoundedLogits, {"rounded-logits", "zero-gradient"}),
    (Softmax, {"probabilities"}),
    (OneHot, {"one-hot", "no-gradient"}),
    (GradientInForward, {"optimisation-in-forward"}),
    (BackwardInForward, {"optimisation-in-forward"}),
    (TrainModeBatchNorm, {"train-mode", "batch-dependent"}),
    (BatchStatistics, {"batch-dependent"}),
    (DropoutLeftOn, {"random"}),
    (Remembers, {"state-changes"}),
    (Shattered, {"loss-does-not-rise"}),
    (WantsNormalised, {"normalisation-outside"}),
]


@pytest.mark.parametrize(("defence", "named"), PLANTED)
def test_planted_defences_are_named(
    defence: type[Defence], named: set[str], honest: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    """Protects: a figure that looks like robustness. None of these ends the evaluation."""
    model = defence(copy.deepcopy(honest)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    findings = check(model, *images)
    assert named <= names(findings), findings
    assert all(torch.equal(value, before[n]) for n, value in model.state_dict().items())
    assert all(finding.text and "\n" not in finding.text for finding in findings)


@pytest.mark.parametrize(
    ("mean", "std"),
    [(0.307, 0.32), (0.307, 1.0), (0.5, 0.5), (0.0, 1 / 255)],
    ids=["own statistics", "own mean", "[-1, 1]", "[0, 255]"],
)
def test_registered_architectures_trained_on_normalised_images_are_found(
    mean: float, std: float
) -> None:
    """Protects: with BatchNorm such a network keeps much of its accuracy on images in [0, 1], and
    the data's own statistics are no well-known ones: nothing was said. Right and wrong images are
    compared in pairs, so a network of medium accuracy is enough."""
    split = tiny_data(None).test
    assert isinstance(split, Split)
    x, y = split.images[:256].float() / 255, split.labels[:256]
    model = train(build("small-resnet"), robust=False, steps=30, mean=mean, std=std)
    found = [finding for finding in check(model, x, y) if finding.name == "normalisation-outside"]
    assert len(found) == 1
    assert "put the normalisation into the model" in found[0].text


class Partly(Defence):
    """On most images it is as good in [0, 1] as in [-1, 1]; of the others it sees the least likely
    class."""

    def forward(self, x: Tensor) -> Tensor:
        other = x.amin((1, 2, 3), keepdim=True) < -0.05
        pixels = torch.where(other, 0.5 * x + 0.5, x).clamp(0, 1)
        weak = (pixels.mean((1, 2, 3)) * 1000).floor().remainder(8) < 1
        return self.model(pixels) * torch.where(weak & ~other.flatten(), -1.0, 1.0)[:, None]


def test_a_gap_of_ten_points_is_enough(honest: nn.Module) -> None:
    """Protects: only gaps above 20 points on 64 images were seen."""
    split = tiny_data(None).test
    assert isinstance(split, Split)
    x, y = split.images[:256].float() / 255, split.labels[:256]
    model = Partly(copy.deepcopy(honest)).eval()
    raw = float((model(x).argmax(1) == y).double().mean())
    assert 0.02 < float((honest(x).argmax(1) == y).double().mean()) - raw < 0.2
    assert "normalisation-outside" in names(check(model, x, y))


@pytest.mark.parametrize(("defence", "named"), PLANTED)
def test_no_planted_defence_ends_the_evaluation(
    defence: type[Defence],
    named: set[str],
    honest: nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Protects: a one-hot output has no gradient, and ended PGD and AutoAttack in a traceback. The
    finding is in the record, beside a figure for every metric."""
    shorten(monkeypatch, "apgd-ce", "apgd-t", steps=10, targets=1)
    threat = {"norm": "linf", "eps": "0.1", "step": "0.05", "steps": 3}
    suite = build_suite(tiny(evaluation=[
        {"kind": "clean"},
        {"kind": "pgd", "name": "pgd3_linf", "threat": threat, "n": 20},
        {"kind": "autoattack", "name": "aa_linf", "eps": "0.1", "n": 20},
    ]))  # fmt: skip
    model = defence(copy.deepcopy(honest)).eval()
    Evaluator(tiny_data(None), torch.device("cpu")).evaluate(model, suite.evaluation, tmp_path)
    record = json.loads((tmp_path / "evaluation.json").read_text())
    assert named <= {finding["name"] for finding in record["reliability"]["findings"]}
    assert list(record["metrics"]) == ["clean", "pgd3_linf", "aa_linf"]


def test_a_model_forgotten_in_train_mode_is_evaluated_in_eval_mode(
    honest: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    """The flag alone is no defect: the evaluation sets and restores it."""
    model = copy.deepcopy(honest).train()
    assert check(model, *images) == []
    assert model.training


def test_one_finding_does_not_stick(honest: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    """Protects: pyautoattack's counter of dynamic models is never reset; ours must not be."""
    assert check(GradientInForward(copy.deepcopy(honest)).eval(), *images)
    assert check(honest, *images) == []


def test_checks_leave_the_generators_alone(
    honest: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    before = torch.get_rng_state()
    check(LargeNoise(honest), *images)
    assert torch.equal(torch.get_rng_state(), before)
