"""Processes that train one method together, as a grid: base learners x shares of the batch.

Learners that step independently of each other are distributed over the positions of one axis. Along
the other axis, the processes of a position divide every batch among them. A single process is a
grid of size 1 x 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from benchmark.core.errors import ConfigError
from benchmark.core.ranks import ALONE, Ranks

BatchStatistics = Literal["synchronised", "per-rank"]

# Estimated extra cost of cutting the batch, as a factor: gradients and statistics are summed over
# processes at every step. A grid that distributes learners is preferred to one that cuts batches
# and is faster by less than this factor.
_CUTTING = 1.5


class Axis:
    """One axis of the grid, seen from one process.

    Attributes:
        position, size: position of this process on the axis, and number of positions.
    """

    def __init__(self, position: int = 0, size: int = 1, group: Any = None) -> None:
        self.position, self.size, self._group = position, size, group

    def __deepcopy__(self, memo: dict[int, Any]) -> Axis:
        return self  # it is a connection, so copies of a network share it

    @torch.no_grad()
    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the axis; every process gets the same bits.

        Tensors of one type are sent in one buffer, since there are many: a ResNet-18 has 62
        gradients.
        """
        if self.size == 1:
            return
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault(tensor.dtype, []).append(tensor)
        for same in kinds.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in same])
            dist.all_reduce(flat, group=self._group)
            parts = flat.split([tensor.numel() for tensor in same])
            torch._foreach_copy_(
                same, [part.view_as(tensor) for part, tensor in zip(parts, same, strict=True)]
            )


NO_PEERS = Axis()


class Turn(NamedTuple):
    """A micro-batch: a share of a process's part of a batch; see ``DataAxis.turns``.

    Attributes:
        start, stop: the range of its images in the whole batch.
        present: number of images in this turn, over all processes.
    """

    start: int
    stop: int
    present: int


class DataAxis(Axis):
    """The axis along which a batch is cut.

    A batch with fewer than two images per process is not cut: every process then uses all of it, as
    a single process would, and nothing is summed.

    Attributes:
        statistics: BatchNorm's statistics in training: those of the whole batch, or of each
            process's part.
        start, stop, total: the range of this process's part in the current batch, and the size of
            the batch.
        present: number of images that pass through the networks at the same time, over all
            processes; less than ``total`` in a turn (``turns``).
    """

    def __init__(
        self,
        position: int = 0,
        size: int = 1,
        group: Any = None,
        statistics: BatchStatistics = "synchronised",
    ) -> None:
        super().__init__(position, size, group)
        self.statistics = statistics
        self.start, self.stop, self.total, self.present = 0, 0, 0, 0

    def part(self, total: int) -> tuple[int, int]:
        """(start, stop) of this process's part of a batch of ``total`` images."""
        if total < 2 * self.size:
            return 0, total
        return _share(0, total, self.position, self.size)

    def take(self, total: int) -> None:
        """Make a batch of ``total`` images the current one."""
        self.total = self.present = total
        self.start, self.stop = self.part(total)

    def turns(self, most: int) -> list[Turn]:
        """This process's part of the current batch, divided into at most ``most`` turns, of which
        only one at a time needs memory.

        There are fewer turns if one would have fewer than two images, and a single turn if the
        batch is so small that the processes have not cut it. All processes have the same number.
        """
        count = max(1, min(most, self.total // (2 * self.size)))
        if count == 1 or (self.size > 1 and not self.cut):
            return [Turn(self.start, self.stop, self.present)]
        parts = [_share(0, self.total, position, self.size) for position in range(self.size)]
        shares = [[_share(*part, turn, count) for part in parts] for turn in range(count)]
        return [
            Turn(*of_all[self.position], sum(stop - start for start, stop in of_all))
            for of_all in shares
        ]

    @contextmanager
    def during(self, turn: Turn) -> Iterator[slice]:
        """Inside, this process's part of the batch is ``turn``. Yields the turn's rows in the part
        that the process has outside."""
        before = self.start, self.stop, self.present
        self.start, self.stop, self.present = turn
        try:
            yield slice(turn.start - before[0], turn.stop - before[0])
        finally:
            self.start, self.stop, self.present = before

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Inside, batches are not cut: every process makes the same passes on the same images."""
        before = self.start, self.stop, self.total
        self.start = self.stop = self.total = 0
        try:
            yield
        finally:
            self.start, self.stop, self.total = before

    @property
    def cut(self) -> bool:
        """Whether the current batch is cut."""
        return self.stop - self.start < self.total

    @property
    def share(self) -> float:
        """The share of the current batch that this process's part is. A mean over the batch is the
        sum, over the axis, of each part's mean times its share."""
        return (self.stop - self.start) / self.total if self.cut else 1.0

    def add_up_(self, tensors: Sequence[Tensor]) -> None:
        """``sum_`` if the current batch is cut."""
        if self.cut:
            self.sum_(tensors)


def _share(start: int, stop: int, number: int, count: int) -> tuple[int, int]:
    """The range of share ``number`` if ``start``..``stop`` is divided into ``count`` shares, whose
    sizes differ by at most one image."""
    size = stop - start
    return start + size * number // count, start + size * (number + 1) // count


@dataclass(frozen=True)
class Mesh:
    """The grid, seen from one process.

    Attributes:
        ranks: all processes.
        learners: the axis along which learners are distributed.
        data: the axis along which batches are cut.
    """

    ranks: Ranks = ALONE
    learners: Axis = field(default_factory=Axis)
    data: DataAxis = field(default_factory=DataAxis)

    def owners(self, passes: Mapping[str, float]) -> dict[str, int]:
        """The position on the learners' axis of each learner, by its gradient passes per step."""
        return deal(passes, self.learners.size)

    def union(self, own: Mapping[Any, Any]) -> dict[Any, Any]:
        """The state dicts, by name, of all positions on the learners' axis; ``own`` are those of
        this position."""
        if self.learners.size == 1:
            return dict(own)
        return self.ranks.share(own if self.data.position == 0 else {})

    def record(self) -> dict[str, Any]:
        """The grid, in the form of a run's record."""
        if self.ranks.world == 1:
            return {"learners": 1, "data": 1}
        grid: dict[str, Any] = {"learners": self.learners.size, "data": self.data.size}
        return grid | ({"batchnorm": self.data.statistics} if self.data.size > 1 else {})


def deal(passes: Mapping[str, float], positions: int) -> dict[str, int]:
    """Distribute learners over positions evenly: the most expensive learner first, each to the
    position with the least work so far."""
    load = [0.0] * positions
    owners = {}
    for name in sorted(passes, key=lambda name: -passes[name]):
        owners[name] = load.index(min(load))
        load[owners[name]] += passes[name]
    return owners


def layout(
    world: int,
    passes: Mapping[str, float],
    *,
    independent_learners: bool,
    cuttable: bool,
    groups: int | None,
) -> tuple[int, int]:
    """(positions of learners, processes per position) for ``world`` processes.

    Args:
        passes: gradient passes per step of each learner.
        independent_learners: see ``Method.independent_learners``.
        cuttable: see ``Objective.cuttable``.
        groups: number of positions that the user asks for; None for the layout that is fastest by
            a rough estimate.

    Raises:
        ConfigError: this number of processes cannot share this training.
    """
    most = len(passes) if independent_learners else 1
    if groups is not None and (groups > most or world % groups):
        raise ConfigError(
            f"--learner-groups {groups} does not fit: {world} processes must be a multiple of it, "
            f"and the method has {most} learner(s) that step independently"
        )
    choices = [
        (count, world // count)
        for count in ([groups] if groups else range(1, most + 1))
        if world % count == 0 and (cuttable or count == world)
    ]
    if not choices:
        raise ConfigError(
            f"{world} processes cannot share this training: one of its objectives mixes the images "
            "of a batch, which therefore cannot be cut, and it has "
            f"{most} learner(s) that step independently; use 1 or {most} processes"
        )

    def cost(choice: tuple[int, int]) -> float:
        positions, cuts = choice
        owners = deal(passes, positions)
        load = [0.0] * positions
        for name, position in owners.items():
            load[position] += passes[name]
        return max(load) / cuts * (_CUTTING if cuts > 1 else 1)

    return min(choices, key=cost)


def connect(
    ranks: Ranks, grid: tuple[int, int], device: torch.device, statistics: BatchStatistics
) -> Mesh:
    """Make the mesh with this layout; every process calls this."""
    if ranks.world == 1:
        return Mesh()
    mesh = init_device_mesh(device.type, grid, mesh_dim_names=("learners", "data"))
    at, cut = mesh.get_local_rank("learners"), mesh.get_local_rank("data")
    return Mesh(
        ranks,
        Axis(at, grid[0], mesh.get_group("learners")),
        DataAxis(cut, grid[1], mesh.get_group("data"), statistics),
    )
