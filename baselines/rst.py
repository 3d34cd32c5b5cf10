"""Robust self-training without its extra data (Carmon et al., 1905.13736)."""

from __future__ import annotations

from typing import ClassVar

from baselines.trades import TRADES
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Schedule


class RSTWithoutExtraData(TRADES):
    """RST without extra data: TRADES with one clean forward pass, E[ CE + beta * KL ].

    Robust self-training (1905.13736) trains with the TRADES loss on 500,000 additional
    pseudo-labelled images. On the data set only, the code of RST (semisup-adv) is TRADES with one
    clean forward pass for both terms. It is listed under this name so that a "RST" in a table
    without extra data is not mistaken for the published method. See ``trades`` for the equation;
    our ``trades`` also makes one clean forward pass, so the two differ only in the training recipe:
    the source has SGD with Nesterov momentum, lr 0.1, cosine schedule, weight decay 5e-4, batch
    256, 200 epochs.

    Departures: the extra data and the recipe; otherwise those of ``trades``.

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
