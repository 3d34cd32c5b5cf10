"""AutoAttack (2003.01690; l_1: 2103.01208): the attacks of ``pyautoattack`` in our own loop.

The loop makes the same batches with the same seeds as the library's, so outcomes are those of its
``run_standard_evaluation``. It adds the following. The state of the model, of the random generators
and of the library's own counters is restored afterwards. Fewer than ten classes are possible.
Progress is shown. Finished batches are kept to resume after interruption, and several processes can
share batches. Every success is verified again. Images are in [0, 1], and eps is in the same unit.

pyautoattack has module-level counters and reseeds the global generators, so make one call at a
time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Literal, get_args

import torch
from pyautoattack import AutoAttack, checks
from torch import Tensor, nn

from benchmark.attacks.folding import Autocast, FoldedView
from benchmark.attacks.journal import AttackedBatch, Journal
from benchmark.core.crafting import crafting
from benchmark.core.errors import BenchmarkError, ConfigError, DataError
from benchmark.core.files import remove_temporaries
from benchmark.core.generators import generators_kept
from benchmark.core.hashing import tensors_hash
from benchmark.core.precision import Precision
from benchmark.core.ranks import ALONE, Ranks
from benchmark.core.registry import did_you_mean
from benchmark.core.threat import LARGEST_EPS, NormName

Version = Literal["standard", "plus", "rand"]

Attack = Literal["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
# Called with work done, work in all (both in images x forward passes) and the attack's name.
Progress = Callable[[int, int, str], None]

ATTACKS = get_args(Attack)
_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
# Losses that rank several wrong classes are undefined with fewer classes than this.
_FEWEST_CLASSES = {"apgd-dlr": 3, "apgd-t": 4}
# A forward pass plus the gradient to the input, in forward passes.
_GRADIENT_PASS = 2
SECONDS_BETWEEN_REPORTS = 0.2


@dataclass(frozen=True)
class AutoAttackResult:
    """What AutoAttack found, per image. Tensors are on the device of ``x``.

    Attributes:
        robust: bool [n], the verdict that pyautoattack gives; False if wrong when clean.
        clean: bool [n], right when clean.
        disputed: bool [n], fooled but not confirmed afterwards: in another batch, the stored
            example is classified correctly, or it is outside of the ball or of [0, 1]. All should
            be False; otherwise the model is random or batch-dependent, or logits are equal up to
            rounding. These images count as fooled, as in pyautoattack; in a screening (bf16) they
            count as robust.
        x_adv: float [n, 3, h, w], the adversarial example where fooled, else the image itself.
        after: fraction of the n images that is robust after each attack, in the order run; empty
            in a screening, where outcomes are verified after all attacks.
        attacks: names in the order run.
        targets: number of target classes of the targeted attacks.
        folded: the gradients came from a folded copy of the model.
        precision: fp32, or bf16 when screening.
        warnings: of pyautoattack's checks and of this adapter, each once.
        versions: of pyautoattack and torch.
    """

    robust: Tensor
    clean: Tensor
    disputed: Tensor
    x_adv: Tensor
    after: dict[str, float]
    attacks: list[str]
    targets: dict[str, int]
    seed: int
    folded: bool
    precision: Precision
    warnings: list[str]
    versions: dict[str, str]


def run_autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: NormName,
    eps: float,
    seed: int,
    version: Version = "standard",
    attacks: Sequence[str] | None = None,
    batch_size: int = 128,
    fold: bool = True,
    precision: Precision = "fp32",
    progress: Progress | None = None,
    journal: Path | None = None,
    ranks: Ranks = ALONE,
) -> AutoAttackResult:
    """Attack ``model`` on ``x`` with AutoAttack.

    Before each attack, the images that are still robust are put into full batches, as in
    pyautoattack. An image that is misclassified when clean is not attacked. Differences from the
    library alone:

    - Targeted attacks use min(9, K - 1) target classes (l_1: APGD-T min(5, K - 1)).
    - With K = 3 classes APGD-T is skipped, with K = 2 also APGD-DLR, because the DLR losses are
      undefined there. A warning in the result says so.
    - The model is in eval mode with frozen parameters, and both are restored.

    Args:
        x: float32 [n, 3, h, w] in [0, 1].
        y: int64 [n], labels.
        eps: radius, in units of pixels in [0, 1].
        seed: of every attack on every batch.
        version: whose parameters to use; ``rand`` for randomised models.
        attacks: a subset of the names in ``ATTACKS`` with the parameters of ``version``; default:
            those of ``version``.
        batch_size: images per forward pass. Verdicts of borderline images can depend on it.
        fold: craft on a BatchNorm-folded copy where it gives the same logits to 1e-4 (APGD-CE on
            small-resnet, 128 images, one CPU thread: 5.4 instead of 7.4 s). Successes are still
            verified with ``model`` itself. Without folding, results are bit-identical to the plain
            call; with it, they can differ for images whose logits are equal up to rounding.
        precision: bf16 crafts on a copy in reduced precision. Every success is verified with
            ``model`` in fp32, twice, in different batches. This is a screening, since its steps are
            not those of AutoAttack.
        progress: called a few times per second with the work done, the total work at most (as if no
            further image were broken), and the attack's name.
        journal: folder in which every finished batch is kept. A call with the same folder reads the
            batches that an interrupted call has finished and makes the others; its result is
            bit-identical to that of an uninterrupted call.
        ranks: processes that share the batches of each attack; all of them call this with the same
            arguments and get the same result, that of one process. pyautoattack seeds every batch
            anew, so the batches of an attack do not depend on one another.

    Raises:
        ConfigError: norm, eps, seed, version, attacks or batch size that cannot be used.
        DataError: images or labels that are not as described.
        BenchmarkError: the model's logits are not finite or not [n, K]; ``journal`` belongs to
            another model, other images or settings.
    """
    if seed is None or isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seed = {seed!r} must be a whole number, 0 or more")
    _check_settings(norm, eps, version, attacks, batch_size)
    _check_images(x, y)
    device = next((tensor.device for tensor in model.parameters()), x.device)
    warnings = _Warnings()
    with (
        torch.inference_mode(False),
        torch.autocast(device.type, enabled=False),
        generators_kept(),
        crafting(model),
    ):
        # The library views images as vectors, which images in channels_last layout do not allow.
        x, y = x.detach().clone(memory_format=torch.contiguous_format), y.clone()
        logits = _logits(model, x, batch_size, device)
        classes = logits.shape[1]
        if int(y.min()) < 0 or int(y.max()) >= classes:
            raise DataError(
                f"labels are in [{int(y.min())}, {int(y.max())}], the model has {classes} classes"
            )
        clean = logits.argmax(1).to(y.device) == y
        if any(not torch.equal(other, clean.cpu()) for other in ranks.gather(clean.cpu())):
            raise BenchmarkError(
                "the model does not classify clean images the same at each pass, so its attack "
                "cannot be shared among processes; evaluate it in one process"
            )
        view = _view(model, x[:batch_size].to(device), logits) if fold else None
        crafted_on: nn.Module = view or model
        if precision == "bf16":
            crafted_on = Autocast(crafted_on, device.type)
        meter = _Meter(crafted_on, progress)
        objects = attack_objects(meter, norm, eps, seed, version, device)
        objects.apgd.logger = objects.apgd_targeted.logger = warnings
        names = _choose(objects, attacks, classes, warnings)
        kept = None
        if journal is not None:
            fingerprint = {
                "weights": tensors_hash(model.state_dict()),
                "images": tensors_hash({"x": x, "y": y}),
                "norm": norm,
                "eps": float(eps),
                "seed": seed,
                "attacks": names,
                "version": version,
                "batch_size": batch_size,
                "folded": view is not None,
                "precision": precision,
                "versions": _versions(),
            }
            if ranks.first:  # before the others write into it
                remove_temporaries(journal)
            ranks.gather(None)
            kept = Journal(journal, fingerprint)
        _check_defence(model, x, y, logits, objects, names, batch_size, device, warnings)
        loop = _Loop(
            objects, classes, model, meter, x, y, batch_size, device, kept, ranks, warnings
        )
        robust, x_adv, after = loop.run(names, clean)
        disputed = _disputed(model, x, x_adv, y, clean & ~robust, norm, eps, batch_size, device)
    if precision == "bf16":
        robust, after = robust | disputed, {}
        x_adv[disputed] = x[disputed]
    elif disputed.any():
        warnings.append(
            f"{int(disputed.sum())} of {int((clean & ~robust).sum())} adversarial examples are not "
            "confirmed when judged again; the model may be random or depend on the batch"
        )
    return AutoAttackResult(
        robust=robust,
        clean=clean,
        disputed=disputed,
        x_adv=x_adv,
        after=after,
        attacks=names,
        targets={
            "apgd-t": objects.apgd_targeted.n_target_classes,
            "fab-t": objects.fab.n_target_classes,
        },
        seed=seed,
        folded=view is not None,
        precision=precision,
        warnings=list(dict.fromkeys(warnings)),
        versions=_versions(),
    )


def attack_objects(
    model: Callable[[Tensor], Tensor],
    norm: NormName,
    eps: float,
    seed: int,
    version: Version,
    device: torch.device,
) -> AutoAttack:
    """The library's attacks on ``model``, with the parameters of ``version``.

    ``run_autoattack`` calls it once and then runs the attacks that ``attacks_to_run`` names. A test
    that wants a short attack replaces this function by one that changes what it returns.
    """
    return AutoAttack(
        model, norm=_NORMS[norm], eps=float(eps), seed=seed, version=version, device=device
    )


def _versions() -> dict[str, str]:
    return {name: installed_version(name) for name in ("pyautoattack", "torch")}


class _Warnings(list[str]):
    """The library's logger, which keeps warnings in a list."""

    def warning(self, message: str) -> None:
        self.append(message)


def _choose(
    objects: AutoAttack, attacks: Sequence[str] | None, classes: int, warnings: list[str]
) -> list[str]:
    """The attacks to run; also sets the numbers of target classes.

    Raises:
        ConfigError: an attack asked for by name is undefined for so few classes.
    """
    wanted = list(objects.attacks_to_run if attacks is None else attacks)
    undefined = [name for name in wanted if classes < _FEWEST_CLASSES.get(name, 2)]
    if attacks is not None and undefined:
        raise ConfigError(
            f"{undefined[0]} needs at least {_FEWEST_CLASSES[undefined[0]]} classes, "
            f"the model has {classes}"
        )
    for name in undefined:
        warnings.append(
            f"{name} is left out: its loss needs {_FEWEST_CLASSES[name]} classes, "
            f"the model has {classes}"
        )
    for targeted in (objects.apgd_targeted, objects.fab):
        targeted.n_target_classes = min(targeted.n_target_classes, classes - 1)
    return [name for name in wanted if name not in undefined]


def _check_defence(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    logits: Tensor,
    objects: AutoAttack,
    names: list[str],
    batch_size: int,
    device: torch.device,
    warnings: _Warnings,
) -> None:
    """The library's checks, on the first batch; what they find goes into ``warnings``.

    ``logits`` are the clean ones, and the first of the five outputs that are compared.
    """
    x, y, logits = x[:batch_size].to(device), y[:batch_size].to(device), logits[:batch_size]
    outputs = [logits]

    def call(x: Tensor) -> None:
        outputs.append(model(x).detach())

    with _library_state_kept():
        checks.check_dynamic(call, x, logger=warnings)
    if objects.version != "rand":
        with torch.no_grad():
            while len(outputs) < 5:
                call(x)
        made = iter(outputs)
        checks.check_randomized(lambda _: next(made), x, y, logger=warnings)
    checks.check_range_output(lambda _: logits, x, logger=warnings)
    targets = objects.apgd_targeted.n_target_classes, objects.fab.n_target_classes
    checks.check_n_classes(logits.shape[1], names, *targets, logger=warnings)


class _Meter:
    """The model that the attacks see. It counts their passes and tells the caller.

    Attributes:
        attack: the running one.
        batch, waiting, later: most work left in this batch, in further batches of this attack, and
            in the attacks to come.
    """

    def __init__(self, model: nn.Module, progress: Progress | None) -> None:
        self._model, self._progress = model, progress
        self._done, self._last_report = 0, 0.0
        self.attack = ""
        self.batch = self.waiting = self.later = 0

    def __call__(self, x: Tensor) -> Tensor:
        logits: Tensor = self._model(x)
        gradient = x.requires_grad and torch.is_grad_enabled()
        if gradient and not logits.requires_grad:
            # An output without gradient would end the library's attacks, Square's included.
            logits = logits + 0 * x.flatten(1).sum(1, keepdim=True)
        work = len(x) * (_GRADIENT_PASS if gradient else 1)
        self._done += work
        self.batch = max(0, self.batch - work)
        self.report()
        return logits

    def report(self, force: bool = False) -> None:
        """Tell the caller, at most a few times per second unless by ``force``."""
        now = time.monotonic()
        if self._progress and (force or now - self._last_report >= SECONDS_BETWEEN_REPORTS):
            self._last_report = now
            left = self.batch + self.waiting + self.later
            self._progress(self._done, self._done + left, self.attack)


@dataclass
class _Loop:
    """The loop of ``run_standard_evaluation``: every attack on the images that are still robust,
    batch by batch.

    It is bit-identical to the library's loop: the same batches, and the same seed for each of them.
    So batches of an attack do not depend on each other, and any process can make them, or they can
    be read from the journal.
    """

    objects: AutoAttack
    classes: int
    judge: nn.Module
    meter: _Meter
    x: Tensor
    y: Tensor
    batch_size: int
    device: torch.device
    journal: Journal | None
    ranks: Ranks
    warnings: _Warnings

    @torch.no_grad()
    def run(self, names: list[str], clean: Tensor) -> tuple[Tensor, Tensor, dict[str, float]]:
        """Whether each image is robust, bool [n]; x_adv [n, 3, h, w] as in the result; and the
        fraction of robust images after each attack."""
        robust, x_adv = clean.clone(), self.x.clone()
        after = {"clean": int(robust.sum()) / len(robust)}
        for number, name in enumerate(names):
            later = sum(_cost(self.objects, rest, self.classes) for rest in names[number + 1 :])
            rows = [part for part in robust.nonzero().flatten().split(self.batch_size) if len(part)]
            for row, batch in zip(rows, self._batches(name, rows, later), strict=True):
                fooled = row[(batch.predictions != self.y[row].cpu()).to(row.device)]
                robust[fooled] = False
                x_adv[fooled] = batch.examples.to(x_adv.device)
            after[name] = int(robust.sum()) / len(robust)
        self.meter.batch = self.meter.waiting = self.meter.later = 0
        self.meter.report(force=True)
        checks.check_square_sr(after, logger=self.warnings)
        del after["clean"]
        return robust, x_adv, after

    def _batches(self, name: str, rows: list[Tensor], later: int) -> list[AttackedBatch]:
        """The result of the attack for each batch of ``rows``, which are indices in x. This process
        attacks its share of the batches and gets the results for the others from other processes.

        Args:
            later: forward passes that further attacks cost, per image that is left.
        """
        perturb, cost = _prepared(self.objects, name), _cost(self.objects, name, self.classes)
        own = range(self.ranks.rank, len(rows), self.ranks.world)
        meter = self.meter
        meter.attack, meter.waiting = name, cost * sum(len(rows[number]) for number in own)
        meter.later = later * sum(map(len, rows)) // self.ranks.world
        made = {}
        for number in own:
            x, y = (tensor[rows[number]].to(self.device) for tensor in (self.x, self.y))
            meter.batch = cost * len(x)
            meter.waiting -= meter.batch
            batch = self.journal.read(name, number, y.cpu()) if self.journal else None
            if batch is None:
                before = len(self.warnings)
                adversarial = perturb(x, y)
                predictions = self.judge(adversarial).argmax(1)
                examples = adversarial[predictions != y].detach().cpu()
                warnings = tuple(self.warnings[before:])
                batch = AttackedBatch(predictions.cpu(), examples, warnings)
                if self.journal:
                    self.journal.write(name, number, y.cpu(), batch)
            made[number] = batch
            meter.batch = 0
            meter.later -= later * len(batch.examples) // self.ranks.world
            meter.report()
        for part in self.ranks.gather(made):
            made |= part
        batches = [made[number] for number in range(len(rows))]
        self.warnings += [text for batch in batches for text in batch.warnings]
        return batches


def _prepared(objects: AutoAttack, name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """``perturb`` of that attack, which is set up as the library does before it is called."""
    if name == "apgd-t":
        attack = objects.apgd_targeted
    elif name == "square":
        attack = objects.square
    elif name.startswith("fab"):
        attack = objects.fab
        attack.targeted = name == "fab-t"
        if attack.targeted:
            attack.n_restarts = 1
    else:
        attack = objects.apgd
        attack.loss = name.removeprefix("apgd-")
    return attack.perturb


def _cost(objects: AutoAttack, name: str, classes: int) -> int:
    """Forward passes per image that survives the attack, at most."""
    apgd, targeted, fab, square = (
        objects.apgd, objects.apgd_targeted, objects.fab, objects.square
    )  # fmt: skip
    # A phase makes one gradient pass more than it has steps; with large radii first, there are
    # three phases.
    once, to_class = (
        _GRADIENT_PASS * (attack.n_iter_orig + (3 if attack.use_largereps else 1))
        for attack in (apgd, targeted)
    )
    passes = {
        "apgd-ce": apgd.n_restarts * apgd.eot_iter * once,
        "apgd-dlr": apgd.n_restarts * apgd.eot_iter * once,
        "apgd-t": targeted.n_target_classes * targeted.n_restarts * (to_class + 1),
        "fab-t": fab.n_target_classes * (fab.n_iter * (_GRADIENT_PASS + 1) + 3),
        "fab": fab.n_restarts * fab.n_iter * (2 + classes),  # a backward pass per class
        "square": square.n_restarts * square.n_queries + 2,
    }
    return int(passes[name]) + 1  # the labels before the attack


def _view(model: nn.Module, x: Tensor, logits: Tensor) -> FoldedView | None:
    """A folded copy if the model allows a copy and that gives the model's ``logits`` on ``x``."""
    # Copying a foreign model may raise any exception; the model itself works.
    try:
        view = FoldedView(model, channels_last=x.device.type == "cpu")
        return view if view.agrees(x, logits) else None
    except Exception:
        return None


def _logits(model: nn.Module, x: Tensor, batch_size: int, device: torch.device) -> Tensor:
    """Logits [n, K] without gradients. Raises BenchmarkError if they are not finite or not 2-D."""
    with torch.no_grad():
        parts = [model(part.to(device)) for part in x.split(batch_size)]
    for part in parts:
        if not isinstance(part, Tensor) or part.dim() != 2 or part.shape[1] < 2:
            got = list(part.shape) if isinstance(part, Tensor) else type(part).__name__
            raise BenchmarkError(f"the model returns {got}, not logits [n, K] with K >= 2")
        if not bool(part.isfinite().all()):
            raise BenchmarkError("the model's logits are not finite; it cannot be evaluated")
    return torch.cat(parts)


def _disputed(
    model: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    y: Tensor,
    fooled: Tensor,
    norm: str,
    eps: float,
    batch_size: int,
    device: torch.device,
) -> Tensor:
    """Which of the ``fooled`` images have an example that is right or not admissible. Bool [n]."""
    disputed = torch.zeros_like(fooled)
    # Reversed order and batches of an odd size, so that images have other neighbours than during
    # the attack.
    indices = fooled.nonzero().flatten().flip(0)
    for part in indices.split(batch_size // 2 + 1):
        with torch.no_grad():
            right = model(x_adv[part].to(device)).argmax(1).to(y.device) == y[part]
        delta = (x_adv[part].double() - x[part].double()).flatten(1)
        order = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}[norm]
        # Slack for float32 sums; 1e-6 also covers l_1, which the library does not clip to the box.
        inside = delta.norm(order, dim=1) <= eps * (1 + 1e-5) + 1e-6
        inside &= x_adv[part].flatten(1).amin(1) >= -1e-6
        inside &= x_adv[part].flatten(1).amax(1) <= 1 + 1e-6
        disputed[part] = right | ~inside
    return disputed


@contextmanager
def _library_state_kept() -> Iterator[None]:
    """Start the library's check for dynamic models from zero, and restore the trace function.

    Its call counters are never reset, so after one dynamic model every later one would be reported;
    and it ends by removing any trace function, so coverage tools and debuggers would stop working.
    """
    trace = sys.gettrace()
    for name in checks.funcs:
        checks.funcs[name] = 0
    try:
        yield
    finally:
        sys.settrace(trace)


def _check_settings(
    norm: str, eps: float, version: str, attacks: Sequence[str] | None, batch_size: int
) -> None:
    if norm not in _NORMS:
        raise ConfigError(f"unknown norm {norm!r}; {did_you_mean(norm, _NORMS)}")
    if not 0 < eps <= LARGEST_EPS[norm]:  # also refuses NaN
        raise ConfigError(
            f"eps = {eps} must be positive and at most {LARGEST_EPS[norm]:g} for {norm}: "
            "it is in units of pixels in [0, 1]"
        )
    if version not in ("standard", "plus", "rand"):
        raise ConfigError(f"unknown version {version!r}; known: standard, plus, rand")
    if batch_size < 1:
        raise ConfigError(f"batch_size = {batch_size} must be at least 1")
    if attacks is not None:
        if not attacks or len(set(attacks)) != len(attacks):
            raise ConfigError(f"attacks = {list(attacks)} must name each attack once")
        for name in attacks:
            if name not in ATTACKS:
                raise ConfigError(f"unknown attack {name!r}; {did_you_mean(name, ATTACKS)}")


def _check_images(x: Tensor, y: Tensor) -> None:
    if x.dim() != 4 or len(x) == 0:
        raise DataError(f"images must be [n, 3, h, w] with n >= 1, not {list(x.shape)}")
    if x.dtype != torch.float32:
        raise DataError(f"images must be float32 in [0, 1], not {x.dtype}")
    if y.dtype != torch.int64 or y.shape != x.shape[:1]:
        raise DataError(f"labels must be int64 [{len(x)}], not {y.dtype} {list(y.shape)}")
    low, high = float(x.min()), float(x.max())
    if not bool(x.isfinite().all()):
        raise DataError("images hold NaN or infinite pixels")
    if low < 0 or high > 1:
        raise DataError(f"pixels are in [{low:g}, {high:g}], not in [0, 1]; normalised or 0..255?")
