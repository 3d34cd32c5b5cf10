"""The adapter gives the verdicts of the bare library and leaves no trace."""

from __future__ import annotations

import logging
import random
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from pyautoattack import AutoAttack, checks
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmark.attacks.autoattack import AutoAttackResult, run_autoattack
from benchmark.core.errors import BenchmarkError, ConfigError, DataError

# Small enough that some of the trained net's images stay robust and some fall.
EPS = {"linf": 0.12, "l2": 0.6, "l1": 4.0}
QUICK = ["apgd-ce", "apgd-t"]


def digits(classes: int) -> tuple[Tensor, Tensor]:
    data = load_digits(n_class=classes)
    x = torch.tensor(data.images, dtype=torch.float32)[:, None].expand(-1, 3, -1, -1) / 16
    return x.contiguous(), torch.tensor(data.target, dtype=torch.int64)


def trained(classes: int, steps: int = 60) -> nn.Module:
    """A small convolutional net with BatchNorm; it is left in train mode on purpose."""
    generator_state = torch.get_rng_state()
    torch.manual_seed(0)
    x, y = digits(classes)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, classes),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        batch = torch.randint(len(x) // 2, (64,))
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_rng_state(generator_state)
    return model


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return trained(6)


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    x, y = digits(6)
    x, y = x[-12:].clone(), y[-12:].clone()
    y[5] = (y[5] + 1) % 6  # one image that is wrong when clean
    return x, y


def attack(model: nn.Module, x: Tensor, y: Tensor, **options: object) -> AutoAttackResult:
    settings = {"norm": "linf", "eps": EPS["linf"], "seed": 0, "attacks": QUICK, **options}
    return run_autoattack(model, x, y, **settings)  # type: ignore[arg-type]


def plain(
    model: nn.Module, x: Tensor, y: Tensor, norm: str, attacks: list[str], batch_size: int
) -> tuple[Tensor, Tensor]:
    """(robust, x_adv) of the bare library, with as many target classes as there are."""
    model.eval()
    bare = AutoAttack(
        model, norm={"linf": "Linf", "l2": "L2", "l1": "L1"}[norm], eps=EPS[norm], seed=0
    )
    bare.attacks_to_run = attacks
    bare.apgd_targeted.n_target_classes = 5
    bare.fab.n_target_classes = 5
    x_adv, y_adv = bare.run_standard_evaluation(x, y, batch_size=batch_size)
    model.train()
    return y_adv == y, x_adv


@pytest.mark.parametrize(
    ("norm", "batch_size", "attacks"),
    [
        pytest.param("linf", 64, ["apgd-ce", "fab-t"], marks=pytest.mark.slow),
        ("linf", 5, QUICK),
        ("l2", 64, QUICK),
        pytest.param("l1", 64, ["apgd-ce"], marks=pytest.mark.slow),
    ],
)
def test_bit_identical_to_the_plain_call(
    norm: str,
    batch_size: int,
    attacks: list[str],
    model: nn.Module,
    data: tuple[Tensor, Tensor],
) -> None:
    robust, x_adv = plain(model, *data, norm, attacks, batch_size)
    options = {"norm": norm, "eps": EPS[norm], "attacks": attacks, "batch_size": batch_size}
    result = attack(model, *data, **options, fold=False)
    assert 0 < int(robust.sum()) < int(result.clean.sum()), "eps should split the images"
    assert torch.equal(result.robust, robust)
    assert torch.equal(result.x_adv, x_adv)
    assert not result.disputed.any()
    folded = attack(model, *data, **options)
    assert folded.folded
    # Another rounding; on these images no verdict hangs on it.
    assert torch.equal(folded.robust, robust)


@pytest.mark.slow
def test_whole_standard_version_equals_the_plain_call(
    model: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    names = ["apgd-ce", "apgd-t", "fab-t", "square"]
    robust, x_adv = plain(model, *data, "linf", names, 64)
    result = attack(model, *data, attacks=None, fold=False)
    assert torch.equal(result.robust, robust)
    assert torch.equal(result.x_adv, x_adv)
    assert list(result.after) == result.attacks == names
    assert result.after["square"] == pytest.approx(robust.float().mean().item())
    assert list(result.after.values()) == sorted(result.after.values(), reverse=True)


def test_result_describes_the_images(model: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    result = attack(model, x, y)
    assert not result.clean[5]
    assert not result.robust[5]
    kept = ~result.clean | result.robust
    assert torch.equal(result.x_adv[kept], x[kept])
    assert ((result.x_adv - x).abs() <= EPS["linf"] + 1e-6).all()
    assert result.targets == {"apgd-t": 5, "fab-t": 5}
    assert result.after["apgd-t"] == pytest.approx(result.robust.float().mean().item())
    assert result.versions["pyautoattack"]


def test_same_seed_same_examples(model: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(1)
    first = attack(model, *data, attacks=["apgd-ce"], seed=3)
    torch.manual_seed(2)
    second = attack(model, *data, attacks=["apgd-ce"], seed=3)
    other = attack(model, *data, attacks=["apgd-ce"], seed=4)
    assert torch.equal(first.x_adv, second.x_adv)
    assert not torch.equal(first.x_adv, other.x_adv)


def test_model_and_random_state_are_as_before(data: tuple[Tensor, Tensor]) -> None:
    model = trained(6, steps=5).train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[3].weight.grad = torch.ones_like(model[3].weight)
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    expected = (torch.rand(3), np.random.rand(), random.random())
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    attack(model, *data)
    drawn = (torch.rand(3), np.random.rand(), random.random())
    assert torch.equal(drawn[0], expected[0])
    assert drawn[1:] == expected[1:]
    assert modes == [module.training for module in model.modules()]
    assert flags == [parameter.requires_grad for parameter in model.parameters()]
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert torch.equal(model[3].weight.grad, torch.ones_like(model[3].weight))


def test_state_is_restored_when_the_attack_breaks(data: tuple[Tensor, Tensor]) -> None:
    model = trained(6, steps=5).train()
    logger = logging.getLogger("auto-attack")
    before = (logger.level, logger.propagate, list(logger.handlers), sys.gettrace())

    def stop(done: int, total: int, attack: str) -> None:
        raise KeyboardInterrupt

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with pytest.raises(KeyboardInterrupt):
        attack(model, *data, progress=stop)
    assert torch.equal(torch.rand(3), expected)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert before == (logger.level, logger.propagate, list(logger.handlers), sys.gettrace())


def test_one_image(model: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    x, y = data[0][:1], data[1][:1]
    attacks = ["apgd-ce", "apgd-t", "fab-t"]
    robust, x_adv = plain(model, x, y, "linf", attacks, 64)
    result = attack(model, x, y, attacks=attacks, fold=False)
    assert torch.equal(result.robust, robust)
    assert torch.equal(result.x_adv, x_adv)


def test_wrong_images_cost_nothing(model: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    x = data[0]
    calls: list[int] = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    model.eval()
    wrong = (model(x).argmax(1) + 1) % 6
    calls.clear()
    result = attack(model, x, wrong, attacks=None)
    handle.remove()
    model.train()
    assert len(calls) < 20  # the library's checks and the clean accuracy
    assert not result.clean.any()
    assert not result.robust.any()
    assert torch.equal(result.x_adv, x)
    assert result.after == dict.fromkeys(["apgd-ce", "apgd-t", "fab-t", "square"], 0.0)


@pytest.mark.parametrize(("classes", "left_out"), [(4, []), (3, ["apgd-t"]), (2, ["apgd-t"])])
def test_few_classes(classes: int, left_out: list[str]) -> None:
    model = trained(classes)
    x, y = digits(classes)
    result = attack(model, x[-2:], y[-2:], attacks=None, eps=0.3)
    assert set(result.attacks) == {"apgd-ce", "apgd-t", "fab-t", "square"} - set(left_out)
    assert result.targets["fab-t"] == classes - 1
    assert any("apgd-t is left out" in line for line in result.warnings) == bool(left_out)
    assert not any("target classes" in line for line in result.warnings)
    if left_out:
        with pytest.raises(ConfigError, match="apgd-t needs at least 4 classes"):
            attack(model, x[-2:], y[-2:], attacks=["apgd-t"])


def test_tiny_radius_fools_nothing(model: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    result = attack(model, *data, eps=1e-7)
    assert torch.equal(result.robust, result.clean)
    assert result.after["apgd-t"] == pytest.approx(11 / 12)


def test_images_in_channels_last_layout(model: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    result = attack(model, x.contiguous(memory_format=torch.channels_last), y)
    assert torch.equal(result.robust, attack(model, x, y).robust)


class Dynamic(nn.Module):
    """Takes a gradient step inside forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            probe = x.detach().requires_grad_()
            torch.autograd.grad(self.model(probe).sum(), probe)
        return self.model(x)


def test_warning_for_a_dynamic_model_does_not_stick(
    model: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    x, y = data[0][:2], data[1][:2]
    found = attack(Dynamic(model), x, y, attacks=["apgd-ce"])
    assert any("dynamic" in line for line in found.warnings)
    assert any(checks.funcs.values())
    assert attack(model, x, y, attacks=["apgd-ce"]).warnings == []


class Noisy(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) + 8 * torch.randn(1, 6)


def test_random_model_is_noticed_and_not_folded(
    model: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    result = attack(Noisy(model), *data, attacks=["apgd-ce"])
    assert any("randomized" in line for line in result.warnings)
    assert not result.folded


class BatchDependent(nn.Module):
    """Right only in the company of an even number of images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        return logits if len(x) % 2 == 0 else logits.roll(1, 1)


def test_success_that_depends_on_the_batch_is_disputed(
    model: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    result = attack(BatchDependent(model), *data, attacks=["apgd-ce"], batch_size=6, eps=1e-6)
    assert result.disputed.any()
    assert any("not confirmed" in line for line in result.warnings)


def test_progress_is_an_upper_bound_that_ends_at_one(
    model: nn.Module, data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.attacks.autoattack.SECONDS_BETWEEN_REPORTS", 0.0)
    reports: list[tuple[int, int, str]] = []
    attack(
        model,
        *data,
        attacks=["apgd-ce", "apgd-t", "fab-t"],
        batch_size=8,
        progress=lambda *report: reports.append(report),
    )
    done, total, names = zip(*reports, strict=True)
    assert list(done) == sorted(done)
    # The bound may only fall, up to the few passes that are not counted per attack.
    assert all(later <= earlier * 1.02 for earlier, later in pairwise(total))
    assert done[-1] == total[-1]
    assert list(dict.fromkeys(names)) == ["apgd-ce", "apgd-t", "fab-t"]
    assert len(reports) > 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "Linf"}, "did you mean 'linf'"),
        ({"eps": 0.0}, "must be positive"),
        ({"eps": float("nan")}, "must be positive"),
        ({"eps": 8.0}, "units of pixels"),
        ({"seed": None}, "seed"),
        ({"version": "custom"}, "unknown version"),
        ({"attacks": ["apgd"]}, "unknown attack 'apgd'"),
        ({"attacks": []}, "each attack once"),
        ({"batch_size": 0}, "at least 1"),
    ],
)
def test_wrong_settings(
    options: dict[str, object], message: str, model: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    with pytest.raises(ConfigError, match=message):
        attack(model, *data, **options)


def test_wrong_images_and_labels(model: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    nan = x.clone()
    nan[0, 0, 0, 0] = float("nan")
    for images, labels, message in (
        (nan, y, "NaN"),
        (x * 255, y, r"not in \[0, 1\]"),
        (x - 0.5, y, r"not in \[0, 1\]"),
        (x.double(), y, "float32"),
        (x[0], y, r"\[n, 3, h, w\]"),
        (x[:0], y[:0], "n >= 1"),
        (x, y[:3], "labels must be"),
        (x, y.float(), "int64"),
        (x, y + 6, "the model has 6 classes"),
        (x, y - 9, "the model has 6 classes"),
    ):
        with pytest.raises(DataError, match=message):
            attack(model, images, labels)


def test_model_without_finite_logits(data: tuple[Tensor, Tensor]) -> None:
    model = trained(6, steps=1)
    with torch.no_grad():
        model[-1].bias[0] = float("nan")
    with pytest.raises(BenchmarkError, match="not finite"):
        attack(model, *data)
