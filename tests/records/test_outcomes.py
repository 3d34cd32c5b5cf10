"""Right or wrong, image by image: exact counts, and a model that is left as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_suites import tiny_data
from torch import Tensor, nn

from benchmark.attacks import pgd
from benchmark.attacks.folding import Autocast, FoldedView
from benchmark.core.threat import Pixels, ThreatModel
from benchmark.data.dataset import Split
from benchmark.metrics.outcomes import clean_outcomes, pgd_outcomes, sample
from benchmark.models.config import ModelConfig
from benchmark.models.zoo import build_model

CPU = torch.device("cpu")
THREAT = ThreatModel(norm="linf", eps=Pixels("0.02"), step=Pixels("0.01"), steps=2)


@pytest.fixture(scope="module")
def split() -> Split:
    test = tiny_data().test
    assert isinstance(test, Split)
    return test


@pytest.fixture(scope="module")
def model(split: Split) -> nn.Module:
    """Trained for a moment, so that some images are right and some of those are robust."""
    torch.manual_seed(0)
    config = ModelConfig(name="small-resnet", width=8)
    model = build_model(config, num_classes=10, image_size=16, mean=(0.3,) * 3, std=(0.3,) * 3)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(25):
        optimizer.zero_grad()
        x = split.images.float() / 255
        nn.functional.cross_entropy(model(x), split.labels).backward()
        optimizer.step()
    return model


def _clean(model: nn.Module, split: Split, batch_size: int) -> Tensor:
    indices = torch.arange(len(split))
    return clean_outcomes(model, split, indices, batch_size=batch_size, device=CPU)


def _pgd(
    model: nn.Module, split: Split, batch_size: int = 64, seed: int = 0, **more: Any
) -> Tensor:
    indices = torch.arange(len(split))
    return pgd_outcomes(
        model, split, indices, THREAT, seed=seed, batch_size=batch_size, device=CPU, **more
    )


def test_ragged_batches_give_the_counts_of_one_batch(model: nn.Module, split: Split) -> None:
    whole = _clean(model, split, 64)
    for size in (1, 7, 63, 1000):
        assert torch.equal(_clean(model, split, size), whole)
    logits = model.eval()(split.images.float() / 255)
    assert torch.equal(whole, logits.argmax(1) == split.labels)


def test_robust_images_are_right_when_clean(model: nn.Module, split: Split) -> None:
    """Protects: an image that is wrong without an attack never counts as robust."""
    clean, robust = _clean(model, split, 64), _pgd(model, split)
    assert 0 < int(robust.sum()) < int(clean.sum()) < len(split)
    assert not (robust & ~clean).any()


def test_an_attack_that_would_repair_a_wrong_image_changes_nothing(split: Split) -> None:
    class WrongWhenClean(nn.Module):
        """Right on every image but the original."""

        def forward(self, x: Tensor) -> Tensor:
            dark = torch.nn.functional.one_hot(split.labels[: len(x)], 10).float()
            same = (x - split.images[: len(x)].float() / 255).abs().amax((1, 2, 3)) < 1e-6
            return torch.where(same[:, None], -dark, dark) + 0 * x.sum()

    assert not _pgd(WrongWhenClean(), split).any()


def test_more_restarts_never_leave_more_robust_images(model: nn.Module, split: Split) -> None:
    one, three = _pgd(model, split), _pgd(model, split, restarts=3)
    assert not (three & ~one).any()


def test_the_attack_is_reproducible_and_seeded(model: nn.Module, split: Split) -> None:
    torch.manual_seed(1)
    first = _pgd(model, split)
    torch.manual_seed(2)
    assert torch.equal(_pgd(model, split), first)
    before = torch.get_rng_state()
    _pgd(model, split, seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_model_is_left_as_it_was(model: nn.Module, split: Split) -> None:
    """Protects: BatchNorm buffers, train/eval flags and requires_grad."""
    model.train()
    model.get_submodule("bn1").eval()
    model.get_parameter("linear.bias").requires_grad_(False)
    try:
        flags = [module.training for module in model.modules()]
        grads = [parameter.requires_grad for parameter in model.parameters()]
        state = {name: value.clone() for name, value in model.state_dict().items()}
        _clean(model, split, 20)
        _pgd(model, split, 20)
        assert flags == [module.training for module in model.modules()]
        assert grads == [parameter.requires_grad for parameter in model.parameters()]
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    finally:
        model.get_parameter("linear.bias").requires_grad_(True)
        model.eval()


def test_an_output_of_nan_is_wrong(split: Split) -> None:
    """Protects: argmax of NaN is the place of the NaN, here always the label."""

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = torch.zeros(len(x), 10) + 0 * x.sum()
            return logits.scatter(1, split.labels[: len(x), None], torch.nan)

    assert not _clean(Broken(), split, 64).any()
    assert not _pgd(Broken(), split).any()


def test_a_network_that_tracing_gets_wrong_is_attacked_itself(split: Split) -> None:
    """Protects: a traced copy bakes in a Python value, and an attack on it would be weak."""

    class CountsItself(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(768, 10)
            self.scale = 1.0

        def forward(self, x: Tensor) -> Tensor:
            # The traced copy keeps the scale of the call that traced it.
            self.scale = 2.0 if self.scale == 1.0 else self.scale
            return self.linear(x.flatten(1)) * self.scale

    torch.manual_seed(0)
    net = CountsItself()
    reference = CountsItself()
    reference.load_state_dict(net.state_dict())
    assert torch.equal(_pgd(net, split), _pgd(reference, split))


def test_samples_are_sorted_nested_and_seeded() -> None:
    big, small = sample(1000, 200, 3), sample(1000, 50, 3)
    assert torch.equal(big, big.sort().values)
    assert len(big.unique()) == 200
    assert set(small.tolist()) < set(big.tolist())
    assert not torch.equal(sample(1000, 50, 4), small)
    assert torch.equal(sample(10, None, 0), torch.arange(10))
    assert torch.equal(sample(10, 99, 0), torch.arange(10))
    assert not torch.equal(small, torch.arange(50))


def test_a_screening_is_crafted_in_bf16_and_judged_in_fp32(model: nn.Module, split: Split) -> None:
    """Protects: a reduced-precision model has no say in what counts as robust."""
    found = _pgd(model, split, precision="bf16")
    x = (split.images.float() / 255).contiguous(memory_format=torch.channels_last)
    right = model.eval()(x).argmax(1) == split.labels
    crafted_on = Autocast(FoldedView(model), "cpu")
    generator = torch.Generator().manual_seed(0)
    x_adv = pgd(crafted_on, x[right], split.labels[right], THREAT, generator=generator)
    expected = right.clone()
    expected[right] = model(x_adv).argmax(1) == split.labels[right]
    assert torch.equal(found, expected)
    assert 0 < int(found.sum()) < int(right.sum())
