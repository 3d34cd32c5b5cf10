"""Robust self-training without its extra data (Carmon et al., 1905.13736)."""

from __future__ import annotations

from typing import ClassVar

from baselines.trades import TRADES
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Schedule


class RSTWithoutExtraData(TRADES):
    """RST without extra data: TRADES with one clean forward pass, E[ CE + beta * KL ].

    Robust self-training (1905.13736) adds 500,000 pseudo-labelled images to the TRADES loss. This
    benchmark trains on the data set alone, where the code of RST (semisup-adv) is TRADES with the
    clean logits used for both terms. It is listed so that nobody mistakes a "RST" of a table
    without extra data for the published one. See ``trades`` for the equation; ours shares the
    clean forward pass already, so the two differ in the training recipe alone: the source has SGD
    with Nesterov momentum, lr 0.1, cosine schedule, weight decay 5e-4, batch 256, 200 epochs.

    Departures: the extra data and the recipe; otherwise as for ``trades``.

    Attributes:
        beta: weight of the divergence; 6 in the source.
        threat: training threat model; the source uses eps 0.031, step 0.007, 10 steps.
    """

    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 1905.13736 (semisup-adv)",
        optimizer=OptimizerConfig(lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True),
        schedule=Schedule(points=((0, 1), (1, 0)), interpolation="cosine"),
        epochs=200,
        batch_size=256,
    )
