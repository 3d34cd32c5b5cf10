"""Puts this folder on the import path (``tiny_learners``); one thread, since tiny nets gain nothing."""

from __future__ import annotations

import os
import signal

import pytest
import torch


def pytest_configure() -> None:
    """One thread, in child processes too. A shell starts background jobs with Ctrl-C ignored, and
    whatever they start inherits it."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
