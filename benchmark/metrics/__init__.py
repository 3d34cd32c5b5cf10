"""Metrics: what an evaluation can measure, one file each, found through entry points."""
