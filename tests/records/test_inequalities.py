"""The inequalities of ``records.theory`` where they must hold, and where one is broken on purpose."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_learners import batches, recipe, tiny_setting

from benchmark.core.averaging import floating_state
from benchmark.core.method import Method
from benchmark.records import theory


def weights(method: Method) -> list[np.ndarray]:
    """Of every learner, then of the deployed network, buffers too."""
    models = [*(learner.model for learner in method.learners.values()), method.deployed()]
    return [torch.cat([w.flatten() for w in floating_state(m)]).double().numpy() for m in models]


@pytest.mark.parametrize(
    "hyper",
    [
        {"name": "generalist-d", "every": 0, "mixing": {"linf": [[0, 0.9], [0.5, 0.6], [1, 0.2]]}},
        {"name": "ema", "decay": 0.6},
        {"name": "pgd-at"},
    ],
)
def test_the_deployed_network_is_the_average_that_the_method_says(hyper: dict) -> None:
    """Protects: weights of another step, or ratios of another learner (equation 1)."""
    total = 12
    method = recipe(**hyper).build(tiny_setting(total))
    path, kept, ratios = [weights(method)], [0.0], [[1.0] + [0.0] * (len(method.learners) - 1)]
    for step, batch in enumerate(batches(total)):
        method.update(batch, step / total)
        mixture = method.mixture(step / total, step)
        assert mixture is not None
        path.append(weights(method))
        kept.append(mixture.kept)
        ratios.append([mixture.ratios[name] for name in method.learners])
    whole = method.mixture((total - 1) / total, 0)
    assert whole is not None
    assert whole.kept == pytest.approx(np.prod(kept[1:]))
    c = theory.shares(np.array(ratios), np.array(kept))
    assert c.sum(axis=(1, 2)) == pytest.approx(np.ones(total + 1))
    for s in range(total + 1):
        average = sum(
            c[s, i, k] * path[i][k] for i in range(s + 1) for k in range(len(method.learners))
        )
        np.testing.assert_allclose(average, path[s][-1], atol=2e-6)


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("generalist-d", {"project_onto": "linf"}),
        ("generalist-official", {}),
        ("output-ensemble", {}),
    ],
)
def test_other_rules_are_no_such_average(name: str, hyper: dict) -> None:
    assert recipe(name, **hyper).build(tiny_setting()).mixture(0.0, 0) is None


def losses(theta: np.ndarray, x: np.ndarray, y: np.ndarray, eps: float) -> np.ndarray:
    """Logistic loss of a linear model at the worst point of an l_inf ball, by its closed form."""
    return np.logaddexp(0, -y * (x @ theta) + eps * np.abs(theta).sum())


def descend(theta: np.ndarray, x: np.ndarray, y: np.ndarray, eps: float) -> np.ndarray:
    push = 1 / (1 + np.exp(y * (x @ theta) - eps * np.abs(theta).sum()))
    slope = (push[:, None] * (-y[:, None] * x + eps * np.sign(theta))).mean(axis=0)
    return theta - 0.5 * slope


TASKS, BALLS, POINTS = ("natural", "robust"), (0.0, 0.3), 40


def convex(without: int | None = None, every: int = 1) -> tuple[np.ndarray, ...]:
    """A Generalist of two linear models: ratios and decays, losses and weights at every point.

    ``every``: only one step in so many is a point.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5)) + 0.5
    y = np.sign(x.sum(axis=1) + rng.normal(size=60))
    x_train, x_test, y_train, y_test = x[:30].copy(), x[30:], y[:30].copy(), y[30:]
    if without is not None:
        x_train[without], y_train[without] = x_train[without + 1], y_train[without + 1]
    learners = [np.zeros(5), np.zeros(5)]
    average, decay = np.zeros(5), 0.8
    ratios, kept, found, path, left = [], [], [], [], 1.0
    for step in range(POINTS):
        gamma = np.array([0.7 * step / POINTS, 1 - 0.7 * step / POINTS])
        learners = [descend(t, x_train, y_train, e) for t, e in zip(learners, BALLS, strict=True)]
        average = decay * average + (1 - decay) * (gamma @ np.array(learners))
        left *= decay
        if (step + 1) % every:
            continue
        networks = [*learners, average]
        ratios.append(gamma)
        kept.append(left)
        found.append([[losses(t, x_test, y_test, e) for e in BALLS] for t in networks])
        path.append(np.array(networks))
        left = 1.0
    return np.array(ratios), np.array(kept), np.array(found), np.array(path)


def with_start(values: np.ndarray, start: np.ndarray) -> np.ndarray:
    return np.concatenate([start[None], values])


def test_a_convex_problem_obeys_the_bounds_at_every_step() -> None:
    """Also image by image: Jensen's inequality holds for each loss."""
    ratios, kept, found, path = convex()
    # the initial weights, zero for all, are in the average too
    ratios, kept = with_start(ratios, ratios[0]), np.concatenate([[0.0], kept])
    found = with_start(found, np.full(found.shape[1:], np.log(2)))
    c = theory.shares(ratios, kept)
    bounds = theory.risk_bounds(c, found, TASKS, every_step=True)
    for name in (*TASKS, theory.MIXED):
        assert (bounds[name].right >= bounds[name].left - 1e-12).all(), name
        assert bounds[name].right[-1] > bounds[name].left[-1] + 1e-4, "the learners do differ"
    # right side by hand, at the end: the best risk of the task and regrets on it
    risks = found.mean(axis=3)
    best = risks[:, :, 1].min()
    by_hand = best + sum(
        c[-1, i, k] * (risks[i, k, 1] - best) for i in range(POINTS + 1) for k in range(2)
    )
    assert bounds["robust"].right[-1] == pytest.approx(by_hand)
    mean, least, regret = theory.regret(risks[:, 0, 0])
    assert regret == mean - least > 0
    other = with_start(convex(without=3)[3], np.zeros((3, 5)))
    path = with_start(path, np.zeros((3, 5)))
    apart = theory.distance_bound(c, np.linalg.norm(path - other, axis=2), every_step=True)
    assert (apart.right >= apart.left - 1e-12).all()
    assert apart.left[-1] > 0


def test_points_far_apart_count_with_their_larger_end() -> None:
    """Protects: a bound called broken because learners got better between two points."""
    ratios, kept, found, _ = convex(every=8)
    c = theory.shares(ratios, kept)
    careless = theory.risk_bounds(c, found, TASKS, every_step=True)["natural"]
    careful = theory.risk_bounds(c, found, TASKS, every_step=False)["natural"]
    assert (careless.right[1:] < careless.left[1:]).any()
    assert (careful.right[1:] >= careful.left[1:]).all()


def test_a_broken_bound_is_seen() -> None:
    """The deployed network is no average of the learners; it is worse than both on one task."""
    ratios, kept, found, _ = convex()
    found[-1, 2, 1] = found[-1, :2, 1].max(axis=0) + 0.5
    bounds = theory.risk_bounds(theory.shares(ratios, kept), found, TASKS, every_step=True)
    robust, natural = bounds["robust"], bounds["natural"]
    assert robust.right[-1] - robust.left[-1] < -2.5 * robust.error[-1] < 0
    assert natural.right[-1] >= natural.left[-1]


def test_own_tasks_alone_are_no_bound() -> None:
    """Risks (theta - 1)^2 and (theta + 1)^2, learners at their optima: the mixture at 0 has risk 1,
    though no learner has any risk on its own task; what they have on the others' covers it."""
    found = np.array([[[0.0, 4.0], [4.0, 0.0], [1.0, 1.0]]])[..., None]
    c = theory.shares(np.array([[0.5, 0.5]]), np.array([0.0]))
    bounds = theory.risk_bounds(c, found, ("plus", "minus"), every_step=True)
    sides = {name: (float(one.left[0]), float(one.right[0])) for name, one in bounds.items()}
    assert sides == {"plus": (1, 2), "minus": (1, 2), theory.MIXED: (1, 2), theory.OWN: (1, 0)}


def test_differences_of_losses() -> None:
    """Each learner on its own task against the deployed network on all, by weight."""
    found = np.zeros((1, 3, 2, 2))
    found[0, 0, 0], found[0, 1, 1] = [1, 3], [2, 2]
    found[0, 2, 0], found[0, 2, 1] = [4, 0], [0, 1]
    c = theory.shares(np.array([[0.25, 0.75]]), np.array([0.0]))
    mean, largest = theory.loss_stability(c, found, every_step=True)
    assert (mean.left[0], mean.right[0]) == (0.25 * 2 + 0.75 * 0.5, 0.25 * 2 + 0.75 * 2)
    assert (largest.left[0], largest.right[0]) == (0.25 * 4 + 0.75 * 1, 0.25 * 3 + 0.75 * 2)
