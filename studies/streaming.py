"""How much memory the streaming loader takes for few and for many images.

    python -m studies.streaming compare FOLDER --batches 600 > streaming.json

FOLDER holds class folders, {train,val}/<class>/<image>. The list of training files is repeated
until it has as many entries as asked for; nothing is copied on disk. Each number of entries is
measured in processes of its own. Needs Linux, which says how much memory processes share. The
record is results/speed/streaming.json.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmark.core.environment import environment
from benchmark.core.errors import BenchmarkError
from benchmark.data.dataset import StreamedSplit
from benchmark.data.folders import list_images
from benchmark.data.streaming import StreamedTrainLoader
from studies.command import new_app, start

# Makes glibc give the memory of freed batches back to the system. By default glibc 2.36 keeps 0 to
# 300 MiB of it, another amount in every run, which hides the growth that is looked for.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
app = new_app()


@dataclass(frozen=True)
class LoaderMemory:
    """One run of the loader; memory in MiB.

    Attributes:
        entries: files in the list.
        peak_rss_mib: highest resident memory of the main process and of every worker, added up:
            memory that they share is counted once for each of them.
        pss_mib: memory of the same processes at the end: what they share is counted once.
    """

    entries: int
    batches: int
    workers: int
    peak_rss_mib: float
    main_peak_rss_mib: float
    worker_peak_rss_mib: list[float]
    pss_mib: float


@app.command()
def compare(
    folder: Annotated[Path, typer.Argument(help="Class folders.")],
    entries: Annotated[list[int] | None, typer.Option(help="Repeatable.")] = None,
    batches: Annotated[int, typer.Option(min=1)] = 300,
    batch_size: Annotated[int, typer.Option(min=2)] = 128,
    workers: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Stream so many batches for each number of entries; prints JSON."""
    rows = []
    for count in entries or [10_000, 1_000_000]:
        arguments = [str(folder), str(count), str(batches), str(batch_size), str(workers)]
        command = [sys.executable, "-m", "studies.streaming", "one", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **_MALLOC}
        )
        if done.returncode:
            raise BenchmarkError(done.stderr.strip())
        rows.append(LoaderMemory(**json.loads(done.stdout)))
    few, many = rows[0], rows[-1]
    grown = (many.pss_mib - few.pss_mib) * 2**20 / max(1, many.entries - few.entries)
    document = {
        "environment": environment("cpu", torch.get_num_threads()),
        "batch_size": batch_size,
        "rows": [asdict(row) for row in rows],
        # growth of pss_mib, of all processes together
        "bytes_per_entry": round(grown, 1),
    }
    print(json.dumps(document, indent=2))


@app.command(hidden=True)
def one(folder: Path, entries: int, batches: int, batch_size: int, workers: int) -> None:
    """One measurement of ``compare``; prints JSON."""
    torch.set_num_threads(1)
    loader = StreamedTrainLoader(
        repeated(folder, entries), batch_size, seed=0, flip=True, workers=workers
    )
    stream = (batch for epoch in range(batches) for batch in loader.epoch(epoch))
    for _ in islice(stream, batches):
        pass
    pids = [child.pid for child in multiprocessing.active_children() if child.pid]
    main, *others = (_mib(pid, "status", "VmHWM") for pid in (os.getpid(), *pids))
    row = LoaderMemory(
        entries=entries,
        batches=batches,
        workers=workers,
        peak_rss_mib=round(main + sum(others), 1),
        main_peak_rss_mib=main,
        worker_peak_rss_mib=others,
        pss_mib=round(sum(_mib(pid, "smaps_rollup", "Pss") for pid in (os.getpid(), *pids)), 1),
    )
    print(json.dumps(asdict(row)))


def repeated(folder: Path, entries: int) -> StreamedSplit:
    """The training images of ``folder``, listed again and again until there are ``entries``."""
    listing = list_images(folder / "train", "train")
    split = StreamedSplit(listing.root, listing.files, torch.from_numpy(listing.labels), 64)
    return split.take(torch.arange(entries) % len(split))


def _mib(pid: int, file: str, key: str) -> float:
    """What Linux says about a process in /proc/PID/FILE, in MiB."""
    for line in Path(f"/proc/{pid}/{file}").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise BenchmarkError(f"/proc/{pid}/{file} has no {key}; run this on Linux")


if __name__ == "__main__":
    start(app)
