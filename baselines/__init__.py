"""Baselines: one short file per method or family, each to be read beside its paper."""
