"""The tasks of ``generalist-bench speed``: ours, and what each is compared with."""

from __future__ import annotations

import copy
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from benchmark.attacks.autoattack import Attack, run_autoattack
from benchmark.core.precision import Precision
from benchmark.core.threat import Pixels, ThreatModel
from benchmark.metrics.outcomes import pgd_outcomes
from benchmark.speed import libraries, plain
from benchmark.speed.clock import Work
from benchmark.speed.passes import Key
from benchmark.speed.setting import Bench, Workload

TRAINING = ("natural", "pgd-at", "trades", "generalist-d", "generalist-t")
PARTS: tuple[Attack, ...] = ("apgd-ce", "apgd-t", "fab-t", "square")
PGD = "pgd-20"
TASKS = (*TRAINING, PGD, *PARTS)
assert set(PARTS) <= set(get_args(Attack))

# The progress of training at the timed steps, where all mixing ratios are above 0.
_PROGRESS = 0.9
_PGD_STEPS = 20
_L2 = "pgd-at under l2"
# The learners of the Generalists, as separate tasks.
_LEARNERS = {"generalist-d": ("natural", "pgd-at"), "generalist-t": ("natural", "pgd-at", _L2)}
# A radius at which no image is broken, so that every image costs the whole length of an attack.
_SAFE = 1e-6


@dataclass(frozen=True)
class TimedTask:
    """A task and what it is compared with.

    Attributes:
        ours: name of a way.
        references: by name, the ways whose seconds add up to it.
        images: per call.
        passes: images x passes per call, by kind and precision.
        disagree: verdicts that differ from the reference's, by reference; None: not comparable.
    """

    task: str
    ours: str
    references: Mapping[str, tuple[str, ...]]
    images: int
    passes: Counter[Key]
    disagree: dict[str, int] = field(default_factory=dict)


@dataclass
class Tasks:
    """Ways of doing things, by name, and the comparisons between them."""

    ways: dict[str, Work] = field(default_factory=dict)
    comparisons: list[TimedTask] = field(default_factory=list)


def build(bench: Bench, wanted: Sequence[str], say: Callable[[str], None]) -> Tasks:
    """The ``wanted`` tasks on ``bench``."""
    tasks = Tasks()
    for task in TRAINING:
        if task in wanted:
            _add_training(tasks, bench, task)
    if set(wanted) & {PGD, *PARTS}:
        model = bench.trained()
        if PGD in wanted:
            radius = _radius(bench, model)
            say(f"{bench.model}: PGD-20 at {radius.eps}, where it leaves about half of the images")
            _add_pgd(tasks, bench, model, radius)
        for part in PARTS:
            if part in wanted:
                _add_part(tasks, bench, model, part, _SAFE)
    return tasks


def training_passes(bench: Bench, task: str) -> Counter[Key]:
    """Images x passes of one step."""
    n, steps, precision = bench.batch_size, bench.amount.steps, bench.precision
    training: Key = ("training", precision)
    gradient: Key = ("gradient", precision)
    forward: Key = ("forward", precision)
    if task in _LEARNERS:
        return sum((training_passes(bench, part) for part in _LEARNERS[task]), Counter())
    if task == "natural":
        return Counter({training: n})
    if task == "trades":  # the clean logits are the attack's target
        return Counter({gradient: steps * n, forward: n, training: 2 * n})
    return Counter({gradient: steps * n, training: n})


def _add_training(tasks: Tasks, bench: Bench, task: str) -> None:
    references: dict[str, tuple[str, ...]] = {"plain": (f"plain {task}",)}
    _add_step(tasks, bench, task)
    for part in _LEARNERS.get(task, ()):
        _add_step(tasks, bench, part)
    if task in _LEARNERS:
        # Plain l_2 steps cost what plain l_inf ones do.
        parts = tuple("natural" if part == "natural" else "pgd-at" for part in _LEARNERS[task])
        references = {
            "plain, learner by learner": tuple(f"plain {part}" for part in parts),
            "its learners alone": _LEARNERS[task],
        }
        for part in parts:
            tasks.ways[f"plain {part}"] = _plain_step(bench, part)
    else:
        tasks.ways[f"plain {task}"] = _plain_step(bench, task)
    passes = training_passes(bench, task)
    tasks.comparisons.append(TimedTask(task, task, references, bench.batch_size, passes))


def _add_step(tasks: Tasks, bench: Bench, task: str) -> None:
    recipe: Any = {"name": "pgd-at", "threat": "l2"} if task == _L2 else task
    method = bench.method(recipe)
    tasks.ways[task] = lambda: method.update(bench.batch, _PROGRESS)


def _plain_step(bench: Bench, task: str) -> Work:
    config = bench.config("natural").recipe
    model = _contiguous(bench.method("natural").deployed())
    optimizer = config.learner.optimizer.build(model)  # type: ignore[attr-defined]
    x, y = bench.batch[0].contiguous(), bench.batch[1]
    if task == "natural":
        return lambda: plain.natural_step(model, optimizer, x, y)
    threat = bench.config("pgd-at").recipe.learner.objective.threat  # type: ignore[attr-defined]
    step = plain.trades_step if task == "trades" else plain.pgd_at_step
    return lambda: step(model, optimizer, x, y, threat)


def _contiguous(model: nn.Module) -> nn.Module:
    """A contiguous copy, whose weights require gradients."""
    return copy.deepcopy(model).to(memory_format=torch.contiguous_format).requires_grad_()


def _threat(eps: str) -> ThreatModel:
    """PGD-20 with steps of a quarter of the radius, as 2/255 for 8/255."""
    return ThreatModel(
        norm="linf", eps=Pixels(eps), step=Pixels(float(Pixels(eps)) / 4), steps=_PGD_STEPS
    )


def _radius(bench: Bench, model: nn.Module) -> ThreatModel:
    """PGD-20 with a radius of 2^k/255 at which a quarter to three quarters of the images survive,
    so that outcomes can differ; if there is no such radius, the last one that was tried."""
    split, _, y = bench.predicted(model)
    n = min(32, len(y))
    power = 3
    for tried in range(8):
        threat = _threat(f"{2.0**power}/255")
        left = float(_ours(bench, model, split, threat, n)().double().mean())
        if 0.25 <= left <= 0.75 or tried == 7:
            break
        power += 1 if left > 0.5 else -1
        if not -6 <= power <= 6:
            break
    return threat


def _ours(
    bench: Bench, model: nn.Module, split: Any, threat: ThreatModel, n: int
) -> Callable[[], Tensor]:
    return lambda: pgd_outcomes(
        model,
        split,
        torch.arange(n),
        threat,
        seed=0,
        batch_size=bench.batch_size,
        device=bench.device,
        precision=bench.precision,
    )


def _add_pgd(tasks: Tasks, bench: Bench, model: nn.Module, threat: ThreatModel) -> None:
    split, x, y = bench.predicted(model)
    ours = _ours(bench, model, split, threat, len(y))
    theirs = _contiguous(model)
    generator = torch.Generator(device=bench.device).manual_seed(0)
    attacks: dict[str, libraries.Attack] = {
        "plain": lambda x, y: plain.pgd(theirs, x, y, threat, generator),
        **libraries.pgd_attacks(theirs, threat),
    }
    verdicts = ours()
    disagree = {}
    for name, attack in attacks.items():
        tasks.ways[f"{name} {PGD}"] = functools.partial(
            _judged, attack, theirs, x.contiguous(), y, bench.batch_size
        )
        if name != "foolbox":  # which draws its starts in another way
            # channels_last as ours: the same draws then belong to the same pixels
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                torch.manual_seed(0)
                found = _judged(attack, theirs, x, y, bench.batch_size)
            disagree[name] = int((found.cpu() != verdicts).sum())
    tasks.ways[PGD] = ours
    gradient: Key = ("gradient", bench.precision)
    judged: Key = ("forward", "fp32")
    passes: Counter[Key] = Counter({gradient: _PGD_STEPS * len(y), judged: 2 * len(y)})
    references = {name: (f"{name} {PGD}",) for name in attacks}
    tasks.comparisons.append(TimedTask(PGD, PGD, references, len(y), passes, disagree))


def _judged(
    attack: libraries.Attack, model: nn.Module, x: Tensor, y: Tensor, batch_size: int
) -> Tensor:
    """Which images ``attack`` leaves right, batch by batch, bool [n]."""
    parts = zip(x.split(batch_size), y.split(batch_size), strict=True)
    return torch.cat([plain.right(model, attack(a, b), b) for a, b in parts])


def _add_part(tasks: Tasks, bench: Bench, model: nn.Module, part: Attack, eps: float) -> None:
    _, x, y = bench.predicted(model)
    n = bench.attacked
    x, y = x[:n].contiguous(), y[:n]
    amount, size = bench.amount, bench.batch_size

    def ours() -> Tensor:
        with shortened(amount):
            return run_autoattack(
                model, x, y, norm="linf", eps=eps, seed=0, attacks=[part], batch_size=size,
                precision=bench.precision,
            ).robust  # fmt: skip

    tasks.ways[part] = ours
    references: dict[str, tuple[str, ...]] = {"itself": (part,)}
    if amount.part_references:
        theirs = _contiguous(model)

        def bare() -> Tensor:
            with shortened(amount):
                return plain.autoattack(theirs, x, y, eps, batch_size=size, attack=part)

        tasks.ways[f"pyautoattack {part}"] = bare
        references = {"pyautoattack": (f"pyautoattack {part}",)}
        others = libraries.autoattack_parts(
            theirs, eps, steps=amount.part_steps, targets=amount.part_targets,
            queries=amount.part_queries,
        )  # fmt: skip
        for (name, library), attack in others.items():
            if name == part:
                way = f"{library} {part}"
                tasks.ways[way] = functools.partial(_judged, attack, theirs, x, y, size)
                references[library] = (way,)
    passes = part_passes(part, amount, n, bench.precision)
    tasks.comparisons.append(TimedTask(part, part, references, n, passes))


def part_passes(part: Attack, amount: Workload, n: int, precision: Precision) -> Counter[Key]:
    """Images x passes that the attack itself needs on ``n`` images that all survive: nothing for
    labels that are known already, for the library's checks or for judging."""
    steps, targets, queries = amount.part_steps, amount.part_targets, amount.part_queries
    gradients, forwards = {
        "apgd-ce": (steps + 1, 0),
        "apgd-t": (targets * (steps + 1), 1),
        "fab-t": (targets * steps, targets * steps),
        "square": (0, queries + 1),
    }[part]
    return Counter({("gradient", precision): n * gradients, ("forward", precision): n * forwards})


@contextmanager
def shortened(amount: Workload) -> Iterator[None]:
    """Inside, the library's attacks are as short as ``amount`` says, for our code and for the plain
    call."""
    full = AutoAttack._set_version

    def short(self: Any, version: str = "standard") -> None:
        full(self, version)
        for apgd in (self.apgd, self.apgd_targeted):
            apgd.n_iter = apgd.n_iter_orig = amount.part_steps
        self.fab.n_iter = amount.part_steps
        self.apgd_targeted.n_target_classes = self.fab.n_target_classes = amount.part_targets
        self.square.n_queries = amount.part_queries

    AutoAttack._set_version = short
    try:
        yield
    finally:
        AutoAttack._set_version = full
