"""Baselines: one short file per method or family, to be read together with its paper."""
