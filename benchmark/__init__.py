"""Generalist-Bench: train, attack and compare adversarially robust classifiers."""
