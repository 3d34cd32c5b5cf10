"""The processes that work together under ``torchrun``; usually there is one process only."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from benchmark.core.errors import ConfigError

T = TypeVar("T")

# Ranks wait for the slowest batch of an attack, which may take hours.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Ranks:
    """All processes, seen from this one.

    Attributes:
        rank: 0 ... world - 1; only rank 0 writes records and prints messages.
        world: number of processes.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Every rank's ``value``, in order of rank; also a barrier."""
        if self.world == 1:
            return [value]
        parts: list[T] = [value] * self.world
        dist.all_gather_object(parts, value)
        return parts

    def share(self, states: Mapping[Any, Any]) -> dict[Any, Any]:
        """The union of every rank's ``states`` (state dicts by name), on the CPU."""
        # Sent as bytes: a pickled tensor would be unpickled on the sender's accelerator.
        buffer = io.BytesIO()
        torch.save(dict(states), buffer)
        union: dict[Any, Any] = {}
        for part in self.gather(buffer.getvalue()):
            union |= torch.load(io.BytesIO(part), map_location="cpu", weights_only=True)
        return union

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether any rank has set it. All ranks get the same answer, so they can
        act on it at the same step."""
        if self.world == 1:
            return list(flags)
        votes = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(votes)
        return [bool(vote) for vote in votes]


ALONE = Ranks()


@contextmanager
def ranks() -> Iterator[Ranks]:
    """The ranks that ``torchrun`` started, connected inside the block; without it, one rank.

    Raises:
        ConfigError: the environment is that of torchrun, but its ranks cannot be reached.
    """
    world = os.environ.get("WORLD_SIZE", "1")
    if world == "1":
        yield ALONE
        return
    try:
        gpu = torch.cuda.is_available() and dist.is_nccl_available()
        backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
        dist.init_process_group(backend, timeout=_PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"WORLD_SIZE = {world}, but the other processes cannot be reached ({error}); start "
            "with torchrun, or unset WORLD_SIZE"
        ) from error
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
