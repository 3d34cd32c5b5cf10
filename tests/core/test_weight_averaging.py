"""Averages in weight space and BatchNorm re-estimation."""

from __future__ import annotations

import pytest
import torch
from tiny_learners import images, relative_error, state_of, tiny_net
from torch import nn

from benchmark.core.averaging import (
    copy_state,
    floating_state,
    move_towards,
    projected,
    reestimate_batchnorm,
)


def test_move_towards_is_the_formula() -> None:
    """target <- a * target + (1 - a) * sum_k share_k * source_k, in place, shares of 0 included."""
    models = [tiny_net(seed, torch.float64) for seed in range(4)]
    target, sources = models[0], models[1:]
    shares, decay = [0.5, 0.0, 0.3], 0.9
    expected = {
        name: decay * value
        + (1 - decay) * sum(s * m.state_dict()[name] for s, m in zip(shares, sources, strict=True))
        for name, value in state_of(target).items()
        if value.is_floating_point()
    }
    move_towards(floating_state(target), [floating_state(m) for m in sources], shares, decay)
    for name, value in expected.items():
        assert relative_error(target.state_dict()[name], value) < 1e-12


def test_projection_adds_no_step_that_points_the_other_way() -> None:
    """The mixture of two and of three sources on one tensor; single numbers are the leader's."""
    start = torch.zeros(4, dtype=torch.float64)
    leader = torch.tensor([1.0, 2, 0, -1], dtype=torch.float64)

    def mixture(*others: torch.Tensor) -> torch.Tensor:
        shares = [0.25] * len(others)
        states = [[tensor] for tensor in (*others, leader)]
        (found,) = projected([start], states, [*shares, 0.75], onto=len(others))
        return found

    torch.testing.assert_close(mixture(-2 * leader), 0.75 * leader)
    torch.testing.assert_close(mixture(2 * leader), 1.25 * leader)
    torch.testing.assert_close(mixture(start), 0.75 * leader)  # no step
    slanted = leader + torch.tensor([2.0, -1, 0, 0], dtype=torch.float64)  # cosine sqrt(6 / 11)
    torch.testing.assert_close(
        mixture(slanted, -leader), 0.75 * leader + 0.25 * (6 / 11) ** 0.5 * slanted
    )
    count = projected(
        [torch.tensor(1.0)], [[torch.tensor(2.0)], [torch.tensor(5.0)]], [0.9, 0.1], 1
    )
    assert count == [torch.tensor(5.0)]


def test_floating_state_leaves_out_counters_and_optionally_buffers() -> None:
    """num_batches_tracked is an integer: averaging it would be nonsense."""
    model = tiny_net()
    parameters = len(list(model.parameters()))
    assert len(floating_state(model)) == parameters + 2  # running mean and variance
    assert len(floating_state(model, buffers=False)) == parameters
    other = tiny_net(1)
    copy_state(floating_state(model), floating_state(other))
    assert torch.equal(model.conv.weight, other.conv.weight)


def test_reestimated_statistics_are_the_average_over_batches() -> None:
    """Equal to mean and unbiased variance per batch, computed by hand and averaged plainly."""
    model = tiny_net(dtype=torch.float64).train()
    model.norm.running_mean.fill_(7.0)
    model.norm.eval()
    momentum = model.norm.momentum
    data = [images(8, seed, torch.float64)[0] for seed in range(3)]
    reestimate_batchnorm(model, data)
    with torch.no_grad():
        features = [model.conv(x).transpose(0, 1).flatten(1) for x in data]
    mean = sum(f.mean(1) for f in features) / 3
    variance = sum(((f - f.mean(1, True)) ** 2).sum(1) / (f.shape[1] - 1) for f in features) / 3
    assert relative_error(model.norm.running_mean, mean) < 1e-9
    assert relative_error(model.norm.running_var, variance) < 1e-9
    assert model.norm.momentum == momentum
    assert [model.training, model.norm.training] == [True, False]


def test_reestimation_needs_data_only_if_there_is_batchnorm() -> None:
    """Reset statistics must never be shipped in silence."""
    model = tiny_net()
    model(torch.rand(8, 3, 8, 8))
    kept = state_of(model)
    with pytest.raises(ValueError, match="at least one batch"):
        reestimate_batchnorm(model, [])
    assert all(torch.equal(kept[key], value) for key, value in model.state_dict().items())
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    before = state_of(plain)
    reestimate_batchnorm(plain, [])
    assert all(torch.equal(before[key], value) for key, value in plain.state_dict().items())


def test_reestimation_weighs_batches_by_their_size() -> None:
    """Protects: one left-over image counted as much as a whole batch."""
    x = torch.cat([images(8)[0], 3 * images(5, seed=1)[0]])
    one, other = tiny_net(), tiny_net()
    reestimate_batchnorm(one, [x[:8], x[8:12], x[12:]])  # the last image alone is left out
    reestimate_batchnorm(other, [x[:4], x[4:8], x[8:12]])
    torch.testing.assert_close(one.norm.running_mean, other.norm.running_mean)
    mean = one.conv(x[:12]).mean((0, 2, 3))
    torch.testing.assert_close(one.norm.running_mean, mean)
