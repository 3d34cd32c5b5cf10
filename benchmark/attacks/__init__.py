"""Attacks on a model: norm balls, the PGD family, and the AutoAttack adapter."""

from benchmark.attacks.norms import NORMS, Norm, norm_of
from benchmark.attacks.pgd import margin, pgd

__all__ = ["NORMS", "Norm", "margin", "norm_of", "pgd"]
