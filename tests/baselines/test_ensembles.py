"""Two networks joined after training: in output space and in weight space."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_learners import (
    assert_same_state,
    batches,
    calibration,
    images,
    recipe,
    relative_error,
    state_of,
    tiny_setting,
    train,
)

from baselines.ensemble import AverageProbabilities
from benchmark.core.method import Method


def trained(name: str, share: float) -> Method:
    method = recipe(name, share=share).build(tiny_setting())
    train(method, batches(4))
    return method


@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("share", [0.5, 0.2])
def test_output_is_log_of_averaged_softmax(share: float, scale: float) -> None:
    """Logits must be those of the averaged distribution, finite where softmax underflows."""
    method = trained("output-ensemble", share)
    model = copy.deepcopy(method.deployed()).double().eval()
    natural, robust = (
        copy.deepcopy(learner.model).double().eval() for learner in method.learners.values()
    )
    for member, twin in zip(model.members, (natural, robust), strict=True):
        member.head.weight.data *= scale
        twin.head.weight.data *= scale
    x, y = images(8, dtype=torch.float64)
    x.requires_grad_()
    mean = share * robust(x).softmax(1) + (1 - share) * natural(x).softmax(1)
    expected = mean.log()
    actual = model(x)
    assert torch.isfinite(actual).all()
    assert relative_error(actual, expected) < 1e-6
    torch.testing.assert_close(actual.exp().sum(1), torch.ones(8, dtype=torch.float64))
    # An attack on the ensemble follows the gradient of the averaged probabilities.
    rows = torch.arange(8)
    (slope,) = torch.autograd.grad(-actual[rows, y].sum(), x)
    (by_hand,) = torch.autograd.grad(-mean[rows, y].log().sum(), x)
    assert by_hand.abs().sum() > 0
    assert relative_error(slope, by_hand) < 1e-6


def test_output_ensemble_deploys_the_live_learners() -> None:
    """Two inference passes, natural first, and no copy that could grow stale."""
    method = trained("output-ensemble", 0.25)
    model = method.deployed()
    assert isinstance(model, AverageProbabilities)
    assert method.inference_passes == 2
    assert model.shares == (0.75, 0.25)
    assert list(method.learners) == ["natural", "robust"]
    for member, learner in zip(model.members, method.learners.values(), strict=True):
        assert member is learner.model


@pytest.mark.parametrize("share", [0.5, 0.2, 0.9])
def test_weights_are_shared_out_and_batchnorm_is_reestimated(share: float) -> None:
    """theta = share * robust + (1 - share) * natural; statistics are of *those* weights."""
    method = trained("weight-interpolation", share)
    before = [state_of(learner.model) for learner in method.learners.values()]
    model = method.deployed()
    natural, robust = (learner.model for learner in method.learners.values())
    for name, weight in model.named_parameters():
        mixed = (1 - share) * natural.get_parameter(name).double()
        mixed = mixed + share * robust.get_parameter(name).double()
        assert relative_error(weight.double(), mixed) < 1e-6
    with torch.no_grad():
        features = [model.conv(x).transpose(0, 1).flatten(1) for x in calibration()]
    assert relative_error(model.norm.running_mean, sum(f.mean(1) for f in features) / 2) < 1e-5
    assert relative_error(model.norm.running_var, sum(f.var(1) for f in features) / 2) < 1e-5
    # Training may go on from where the learners are.
    for learner, state in zip(method.learners.values(), before, strict=True):
        assert_same_state(learner.model, state)
    assert method.inference_passes == 1


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
@pytest.mark.parametrize("name", ["output-ensemble", "weight-interpolation"])
def test_a_share_of_nothing_is_refused(name: str, share: float) -> None:
    """A share of 0 or 1 is a single network, and log(0) besides."""
    with pytest.raises(ValueError, match="share"):
        recipe(name, share=share)
