"""Generalist: several base learners, one global learner (2303.13813, 2510.13361)."""
