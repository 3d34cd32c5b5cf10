"""What can be checked of the two theorems on one trajectory: the inequalities, and nothing else.

K learners with weights theta_k^i were seen at points i = 1, ..., n of a training, with mixing
ratios gamma_k^i. The deployed network theta_g is a moving average of their mixtures, so

    theta_g^S = sum_{i <= S, k} c_ik theta_k^i,    c_ik = w_i gamma_k^i,    sum_ik c_ik = 1,     (1)

where w_i is the share in the average of the steps since the point before i (for the first point,
of all steps until then). It is exact if every step is a point. Else learners are not known between
two points, and each step counts with the larger of the two values at the points around it (see
``larger_end``). Let R_j(theta) be the risk of task j, and g_k = sum_i c_ik the weight of learner k.
With R_j convex,

    R_j(theta_g) <= sum_ik c_ik R_j(theta_k^i)                                                   (2)

(Jensen), whose right side is b_j + sum_ik c_ik (R_j(theta_k^i) - b_j) for any b_j: the best risk of
the task and the regrets of the learners on it. Weighted by g_j and summed over tasks, (2) gives

    sum_j g_j R_j(theta_g) <= sum_j g_j sum_ik c_ik R_j(theta_k^i)                               (3)

A bound by the regret of each learner on *its own* task alone,

    sum_j g_j R_j(theta_g) <= sum_ik c_ik R_k(theta_k^i),                                        (4)

is (3) less the transfer sum_ik c_ik (sum_j g_j R_j(theta_k^i) - R_k(theta_k^i)), what learners lose
on the others' tasks; it follows from convexity only where that is not positive.

Of two runs theta and theta' with the same c, (1) alone gives for any norm

    ||theta_g - theta_g'|| <= sum_ik c_ik ||theta_k^i - theta_k^i'||.                            (5)

For losses no such inequality follows without more (with an L-Lipschitz loss, L times (5)); what is
compared is

    sum_j g_j d_j(theta_g, theta_g')   with   sum_ik c_ik d_k(theta_k^i, theta_k^i'),            (6)

d_j being the mean or the largest absolute difference of the losses of task j over images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# Names of the inequalities (3) and (4), and of networks that are no learner.
MIXED, OWN = "all tasks", "own tasks"
DEPLOYED, MIXTURE = "deployed network", "mixture of this step"


@dataclass(frozen=True)
class Sides:
    """Both sides of an inequality at every point; ``error``: the standard error over images of
    their difference."""

    left: np.ndarray
    right: np.ndarray
    error: np.ndarray


def shares(ratios: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """c of (1) for the average at every point: [S, i, k], zero for i > S.

    Args:
        ratios: [points, learners].
        kept: the share of the average at the point before that is still there, [points]; what the
            first keeps of the initial weights is counted as its own.
    """
    points = len(kept)
    c = np.zeros((points, *ratios.shape))
    for s in range(points):
        if s:
            c[s] = kept[s] * c[s - 1]
            c[s, s] = (1 - kept[s]) * ratios[s]
        else:
            c[0, 0] = ratios[0]
    return c


def larger_end(values: np.ndarray) -> np.ndarray:
    """What a right side counts for the steps before each point: its values, [points, ..., images],
    or those of the point before where their mean over images is larger."""
    mean = values.mean(axis=-1, keepdims=True)
    found = values.copy()
    found[1:] = np.where(mean[:-1] > mean[1:], values[:-1], values[1:])
    return found


def risk_bounds(
    c: np.ndarray, losses: np.ndarray, tasks: tuple[str, ...], *, every_step: bool
) -> Mapping[str, Sides]:
    """(2) by task, (3) as ``MIXED`` and (4) as ``OWN``.

    Args:
        c: see ``shares``.
        losses: [points, networks, tasks, images]: of the learners, in the order of their tasks, and
            then of the deployed network.
        every_step: the points are all steps, so that nothing lies between them.
    """
    count = len(tasks)
    learners, deployed = losses[:, :count], losses[:, count]
    learners = learners if every_step else larger_end(learners)
    weight = c.sum(axis=1)
    left = deployed.transpose(1, 0, 2)  # [tasks, points, images]
    right = np.einsum("sik,ikjm->jsm", c, learners)
    own = np.einsum("sik,ikm->sm", c, np.einsum("ikkm->ikm", learners))
    mixed = np.einsum("sj,jsm->sm", weight, left)
    found = {task: _sides(left[j], right[j]) for j, task in enumerate(tasks)}
    found[MIXED] = _sides(mixed, np.einsum("sj,jsm->sm", weight, right))
    found[OWN] = _sides(mixed, own)
    return found


def distance_bound(c: np.ndarray, distances: np.ndarray, *, every_step: bool) -> Sides:
    """(5): ``distances`` [points, networks], of the learners and then of the deployed network."""
    learners = distances[:, :-1]
    learners = learners if every_step else larger_end(learners[..., None])[..., 0]
    right = np.einsum("sik,ik->s", c, learners)
    return Sides(distances[:, -1], right, np.zeros(len(right)))


def loss_stability(
    c: np.ndarray, differences: np.ndarray, *, every_step: bool
) -> tuple[Sides, Sides]:
    """(6) with means and with the largest over images.

    Args:
        differences: absolute ones, of the form of ``losses`` in ``risk_bounds``.
    """
    count = differences.shape[2]
    learners, deployed = differences[:, :count], differences[:, count]
    own = np.einsum("ikkm->ikm", learners)
    most = own.max(axis=2)
    if not every_step:
        own, most = larger_end(own), larger_end(most[..., None])[..., 0]
    weight = c.sum(axis=1)
    mean = _sides(np.einsum("sj,sjm->sm", weight, deployed), np.einsum("sik,ikm->sm", c, own))
    largest = Sides(
        np.einsum("sj,sj->s", weight, deployed.max(axis=2)),
        np.einsum("sik,ik->s", c, most),
        np.zeros(len(c)),
    )
    return mean, largest


def regret(risks: np.ndarray) -> tuple[float, float, float]:
    """Of a learner's risks along its path, [points]: their mean, the least, and the regret per
    point, which is the difference."""
    mean, best = float(risks.mean()), float(risks.min())
    return mean, best, mean - best


def _sides(left: np.ndarray, right: np.ndarray) -> Sides:
    """From the losses of single images, [points, images]."""
    images = left.shape[1]
    return Sides(left.mean(axis=1), right.mean(axis=1), (right - left).std(axis=1) / images**0.5)
