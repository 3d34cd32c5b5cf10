"""Errors for the user: each message says what is wrong and what to do."""

from __future__ import annotations


class BenchmarkError(Exception):
    """Base of every error raised on purpose. The command line prints it without a traceback."""


class ConfigError(BenchmarkError):
    """A configuration, a command-line value or a name that cannot be used."""


class DataError(BenchmarkError):
    """A data set that is missing, damaged or not in the declared form."""


class CheckpointError(BenchmarkError):
    """A checkpoint that is missing, damaged or made with another configuration."""


class RunLockedError(BenchmarkError):
    """Another process is writing the same run directory."""


class DeviceMemoryError(BenchmarkError):
    """The device's memory is too small for a step of training or a batch of evaluation."""


class DivergenceError(BenchmarkError):
    """Training produced a loss that is not finite or has exploded."""
