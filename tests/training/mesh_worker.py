"""One of several processes that train tiny methods together, in float64; started by torchrun.

    torchrun ... mesh_worker.py JOBS.json OUT.pt

A job is ``{name, recipe, groups, start, stop, from, batchnorm, accumulate, order}``; OUT holds the states at the end, by
name, as the first process has them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tiny_learners import CONTEXT, calibration, held_out, images, load_teacher, tiny_net
from torch import Tensor, nn

from benchmark.core.batchnorm import synchronise_batchnorm
from benchmark.core.mesh import Mesh, connect, layout
from benchmark.core.method import Method, make_recipe
from benchmark.core.ranks import ALONE, Ranks, ranks
from benchmark.core.setting import Setting
from benchmark.training.random_state import RandomState
from benchmark.training.views import ModelPrecision

CPU = torch.device("cpu")
# Uneven parts, and batches too small for four processes or two: those are not cut.
SIZES = (16, 13, 3, 16, 6, 10)


def build(
    recipe: Mapping[str, Any],
    mesh: Mesh,
    generators: Callable[[int], torch.Generator],
    accumulate: int = 1,
) -> Method:
    """A method whose networks are of float64, so that the order of sums shows in the 12th digit."""

    def new_model(init: int = 0, model: Mapping[str, Any] | None = None) -> nn.Module:
        network: nn.Module = tiny_net(init, torch.float64)
        if mesh.data.size > 1 and mesh.data.statistics == "synchronised":
            network = synchronise_batchnorm(network, mesh.data)
        return network

    return make_recipe(recipe, CONTEXT).build(
        Setting(
            new_model=new_model,
            total_steps=len(SIZES),
            steps_per_epoch=2,
            generator=generators(0),
            generators=generators,
            calibration=lambda: calibration(torch.float64),
            held_out=lambda: held_out(torch.float64),
            crafting_view=ModelPrecision("fp32", CPU).view,
            load=load_teacher,
            mesh=mesh,
            accumulate=accumulate,
        )
    )


def trained(job: Mapping[str, Any], together: Ranks = ALONE) -> dict[str, Any]:
    """The state of a method after steps ``start`` to ``stop``, losses, and the grid."""
    probe = build(job["recipe"], Mesh(), RandomState(0, CPU).generator)
    passes = {name: learner.passes for name, learner in probe.learners.items()}
    grid = layout(
        together.world,
        passes,
        independent_learners=probe.independent_learners,
        cuttable=probe.cuttable,
        groups=job.get("groups"),
    )
    mesh = connect(together, grid, CPU, job.get("batchnorm", "synchronised"))
    random = RandomState(0, CPU, mesh.data)
    method = build(job["recipe"], mesh, random.generator, job.get("accumulate", 1))
    before = job.get("from")
    if before:
        saved = torch.load(before, weights_only=True)[job["name"]]
        method.load_state_dict(saved["method"])
        random.load_state_dict(saved["random"])
    losses: list[dict[str, Tensor]] = []
    for step in range(job.get("start", 0), job.get("stop", len(SIZES))):
        mesh.data.take(SIZES[step])
        x, y = images(SIZES[step], seed=step, dtype=torch.float64)
        if "order" in job:
            x, y = x[job["order"]], y[job["order"]]
        part = slice(mesh.data.start, mesh.data.stop)
        given = method.update((x[part], y[part]), step / len(SIZES))
        share = mesh.data.share / (1 if mesh.data.cut else mesh.data.size)
        losses.append({name: loss * share for name, loss in given.items()})
    method.share(mesh)
    random.share(mesh, [n for n, item in enumerate(method.learners.values()) if item.here])
    sums = [
        {
            name: sum(part.get(name, 0.0) for part in parts)
            for name in {name for part in parts for name in part}
        }
        for parts in (together.gather(line) for line in losses)
    ]
    return {
        "method": method.state_dict(),
        "deployed": method.deployed().state_dict(),
        "diagnostics": method.diagnostics(0.5),
        "random": random.state_dict(),
        "losses": sums,
        "grid": list(grid),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    jobs = json.loads(Path(sys.argv[1]).read_text())
    with ranks() as together:
        states = {job["name"]: trained(job, together) for job in jobs}
        if together.first:
            torch.save(states, sys.argv[2])
