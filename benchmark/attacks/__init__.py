"""Attacks on a model: norm balls, the PGD family, and the AutoAttack adapter."""

from benchmark.attacks.norms import NORMS, Norm, norm_of
from benchmark.attacks.pgd import margin, pgd

DESCRIPTIONS = {
    "pgd": "projected gradient descent on the cross-entropy, for linf, l2 and l1 (1706.06083)",
    "mim": "pgd with momentum, `momentum: 1.0` (1710.06081)",
    "cw": "pgd on the margin loss of Carlini & Wagner, `loss: cw` (1608.04644)",
    "autoattack": "standard AutoAttack through pyautoattack, for linf, l2 and l1 (2003.01690)",
    "spatial": "rotations and translations, the worst over a grid (1712.02779)",
    "corruptions": "15 common corruptions, five severities (1903.12261)",
}

__all__ = ["DESCRIPTIONS", "NORMS", "Norm", "margin", "norm_of", "pgd"]
