"""The cells of a suite on a Ray cluster: one task each, restarted if its worker is lost."""

from __future__ import annotations

import logging
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmark.commands.left import is_finished
from benchmark.commands.run import Ended, Job, cell_directory, locked, pick_device, run_cell
from benchmark.config.suite import Cell
from benchmark.core.errors import BenchmarkError, ConfigError
from benchmark.core.progress import Progress
from benchmark.data import sources
from benchmark.data.dataset import Dataset
from benchmark.records.files import SuiteFiles
from benchmark.training.state import check_same_data

# How often a cell may lose its worker; each time it resumes from its checkpoint.
_LOSSES = 10
# Seconds until the lock of a dead worker is free: its loader processes may run a few seconds longer
# than the worker, and a file server may keep the locks of a lost machine for 90 seconds.
_PATIENCE = 120.0
# Seconds that interrupted cells have to write a checkpoint, after the step they are in.
_GRACE = 60.0
_STORE_BYTES = 100 << 20  # small, since only names and lines are sent
_STARTED = "started"


@dataclass(frozen=True)
class RayEngine:
    """Runs cells on a Ray cluster, as many at a time as it has room for.

    The output folder, the data and this package must be the same on every machine. Ray's usage
    report and dashboard stay off.

    Attributes:
        address: address of a running cluster, ``auto`` for the cluster of this machine; None for
            that of RAY_ADDRESS, or else a Ray that is started on this machine for this call.
        cpus: CPU cores per cell, which is also its number of torch threads.
        gpus: GPUs per cell, possibly a fraction; None for one if the cluster has GPUs.

    Raises:
        ConfigError: Ray is not installed.
    """

    address: str | None = None
    cpus: int = 1
    gpus: float | None = None

    def __post_init__(self) -> None:
        if find_spec("ray") is None:
            raise ConfigError(
                "--engine ray needs the ray package: pip install 'generalist-bench[ray]'"
            )

    def __call__(self, job: Job, data: Dataset, progress: Progress) -> Iterator[Ended]:
        """Yield cells as they end, in any order.

        Raises:
            ConfigError: there is no cluster, or no machine in it is large enough for a cell.
        """
        # Workers start in other folders, so paths must be absolute.
        job = replace(job, out=job.out.resolve(), data_root=job.data_root.resolve())
        with _cluster(self.address) as ray:
            gpus = _gpus(ray) if self.gpus is None and job.device != "cpu" else self.gpus or 0
            _check_room(ray, self.cpus, gpus)
            if not gpus and job.device == "auto":  # do not use GPUs that other cells may have
                job = replace(job, device="cpu")
            yield from _Driver(ray, job, data, progress, self.cpus, gpus).run()


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """The ray module, connected; a Ray of our own ends with the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray  # noqa: PLC0415 - an optional extra

    address = address or os.environ.get("RAY_ADDRESS") or "local"
    own: dict[str, Any] = {}
    if address == "local":
        own = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address,
            logging_level=logging.ERROR,
            log_to_driver=False,
            runtime_env={"worker_process_setup_hook": _ours_first()},
            **own,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"there is no Ray cluster to use at {address!r} ({str(error).splitlines()[0]}); start "
            "one with ray start --head, or leave out --address to use this machine alone"
        ) from error
    try:
        signal.signal(signal.SIGTERM, handler)  # ray's own would end this process at once
        yield ray
    finally:
        ray.shutdown()


def _ours_first() -> Callable[[], None]:
    """A hook that workers run first. It imports our packages before Ray puts the working directory
    first in the path, where the user may have packages with the same names."""
    names = ("benchmark", "baselines", "generalist")
    folder = str(Path(__file__).parents[2])

    def hook() -> None:  # inside, so that Ray sends its code and not its name
        import importlib  # noqa: PLC0415
        import sys  # noqa: PLC0415

        sys.path.insert(0, folder)
        for name in names:
            importlib.import_module(name)
        sys.path.remove(folder)

    return hook


def _gpus(ray: Any) -> float:
    return 1 if ray.cluster_resources().get("GPU") else 0


def _check_room(ray: Any, cpus: int, gpus: float) -> None:
    """Raise ConfigError if no machine is large enough, since Ray would wait for one for ever."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(r.get("CPU", 0) >= cpus and r.get("GPU", 0) >= gpus for r in machines):
        have = "; ".join(f"{r.get('CPU', 0):g} CPUs and {r.get('GPU', 0):g} GPUs" for r in machines)
        raise ConfigError(
            f"a cell needs {cpus} CPUs and {gpus:g} GPUs on one machine, but the cluster has: "
            f"{have}; lower --cpus-per-cell or --gpus-per-cell"
        )


class _Driver:
    """Starts cells, receives their messages, and restarts those whose worker is lost."""

    def __init__(
        self, ray: Any, job: Job, data: Dataset, progress: Progress, cpus: int, gpus: float
    ) -> None:
        # Ray is an optional extra.
        from ray.util import scheduling_strategies as strategies  # noqa: PLC0415
        from ray.util.queue import Queue  # noqa: PLC0415

        self.ray, self.job, self.progress = ray, job, progress
        self.heads = job.heads()
        # The queue is on this machine, so that it is not lost with another machine.
        here = strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        self.told = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        # No retries by Ray, since it would restart a lost task without a message.
        task = ray.remote(_run_cell).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)
        self.send = lambda number: task.remote(
            job, *self.heads[number], number, cpus, data.fingerprint, self.told
        )
        self.cells: dict[Any, int] = {}
        self.running: set[int] = set()
        # For each cell that is not started yet, the runs that must end before.
        slugs = {cell.slug for cell, _ in self.heads}
        self.waiting = {
            number: slugs & set(cell.config.needs.values())
            for number, (cell, _) in enumerate(self.heads)
        }
        self.losses: Counter[int] = Counter()

    def run(self) -> Iterator[Ended]:
        metrics = self.job.suite.evaluation if self.job.evaluate else ()
        # Finished cells take no time, so they do not count in the estimate for the others.
        finished = {
            number
            for number, (cell, _) in enumerate(self.heads)
            if is_finished(cell.config, cell_directory(self.job.out, cell), metrics)
        }
        try:
            with self.progress.task("cells", len(self.heads), len(finished)) as task:
                while self.cells or self.waiting:
                    for number in [n for n, needed in self.waiting.items() if not needed]:
                        del self.waiting[number]
                        self.cells[self.send(number)] = number
                    ready, _ = self.ray.wait(list(self.cells), timeout=1.0)
                    self._listen()
                    for reference in ready:
                        number = self.cells.pop(reference)
                        self.running.discard(number)
                        ended = self._ended(reference, number)
                        if ended:
                            for needed in self.waiting.values():
                                needed.discard(ended[0].slug)
                            task.advance(number not in finished, self._note())
                            yield ended
                    task.advance(0, self._note())
        finally:
            if self.cells:
                self._cancel()

    def _note(self) -> str:
        waiting = len(self.cells) - len(self.running) + len(self.waiting)
        return f"{len(self.running)} running, {waiting} waiting"

    def _listen(self) -> None:
        for number, text in self.told.get_nowait_batch(self.told.qsize()):
            head = self.heads[number][1]
            if text == _STARTED:
                self.running.add(number)
            self.progress.say(text if text.startswith(head) else f"{head}: {text.strip()}")

    def _ended(self, reference: Any, number: int) -> Ended | None:
        """The result of a cell; None if the cell was restarted."""
        from ray.exceptions import RayError, RayTaskError  # noqa: PLC0415 - an optional extra

        cell, head = self.heads[number]
        error: BenchmarkError | None
        try:
            error = self.ray.get(reference)
        except RayTaskError as problem:  # a fault in the program, with its traceback
            self.progress.say(str(problem))
            error = BenchmarkError(f"{cell.slug}: {problem.cause!r}; see the traceback above")
        except RayError as problem:
            self.losses[number] += 1
            reason = f"its worker was lost ({type(problem).__name__})"
            if self.losses[number] <= _LOSSES:
                self.progress.say(f"{head}: {reason}; again, from its last checkpoint")
                self.cells[self.send(number)] = number
                return None
            error = BenchmarkError(
                f"{cell.slug}: {reason} {_LOSSES + 1} times; look for what ends it, such as too "
                "little memory, then run the same command again to resume"
            )
        return cell, error

    def _cancel(self) -> None:
        """Stop the running cells; those in training write a checkpoint first."""
        self.progress.say(
            f"stopping {len(self.running)} cells, which may take {_GRACE:.0f} s; once more to stop "
            "at once"
        )
        for reference in self.cells:
            self.ray.cancel(reference)
        self.ray.wait(list(self.cells), num_returns=len(self.cells), timeout=_GRACE)


class _RemoteProgress(Progress):
    """Sends its lines to the driver."""

    def __init__(self, number: int, told: Any) -> None:
        super().__init__(quiet=True)
        self._number, self._told = number, told
        self._last: Any = None

    def say(self, text: str) -> None:
        # Not put(), because it waits, and while a task waits, Ray gives its cores to another cell.
        self._last = self._told.actor.put_nowait.remote((self._number, text))

    def heard(self) -> None:
        """Wait until the driver has received the last line."""
        import ray  # noqa: PLC0415 - an optional extra

        with suppress(ray.exceptions.RayError):  # if the driver is gone, the cell still counts
            ray.get(self._last)


def _run_cell(
    job: Job, cell: Cell, head: str, number: int, cpus: int, fingerprint: str, told: Any
) -> BenchmarkError | None:
    """A whole cell, in a Ray worker; the error that stopped it, if any."""
    torch.set_num_threads(cpus)
    progress = _RemoteProgress(number, told)
    progress.say(_STARTED)
    try:
        _check_shared(job.out)
        device = pick_device(job.device)
        data = sources.load(job.suite.dataset, job.data_root)
        check_same_data(fingerprint, data, SuiteFiles(job.out).plan)
        with locked([cell_directory(job.out, cell)], _PATIENCE):
            error = run_cell(job, cell, head, job.evaluator(data, device, progress))
    except BenchmarkError as problem:
        progress.say(str(problem))
        error = type(problem)(f"{cell.slug}: {problem}")
    progress.heard()
    return error


def _check_shared(out: Path) -> None:
    if not SuiteFiles(out).plan.exists():
        raise BenchmarkError(
            f"{out} is not there on every machine of the cluster; choose an --out on a file system "
            "that all of them share"
        )
