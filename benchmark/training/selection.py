"""Which checkpoint of a training is deployed; saving and loading its weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmark.config.suite import CellConfig, Selection, TrainConfig
from benchmark.core.errors import CheckpointError
from benchmark.core.method import Method
from benchmark.data.dataset import Dataset
from benchmark.models.zoo import recorded_state
from benchmark.records.files import RunFiles
from benchmark.records.schema import read_training
from benchmark.training import checkpoint
from benchmark.training.build import build_method
from benchmark.training.state import TrainingState

# The prefix of mixing ratios in a method's ``diagnostics``.
_MIX = "mix/"
# The scores by which rules choose a checkpoint; they are recorded for the chosen one.
_SCORES = ("val_clean", "val_pgd")


def select(
    train: TrainConfig, state: TrainingState, line: Mapping[str, float], scores: Mapping[str, float]
) -> list[Selection]:
    """The rules of ``train`` that choose the present checkpoint; the choice is stored in ``state``.

    Args:
        line: the present line of the log; its mixing ratios are stored too.
        scores: ``val_clean`` and ``val_pgd`` of the present checkpoint, in [0, 1].
    """
    noted = {"selected_epoch": state.epoch, **{key: scores[key] for key in _SCORES}}
    noted |= {name: value for name, value in line.items() if name.startswith(_MIX)}
    floor = train.selection_floor
    choosing = [rule for rule in train.selection if _is_better(rule, scores, state, floor)]
    state.selected |= dict.fromkeys(choosing, noted)
    return choosing


def _is_better(
    rule: Selection, scores: Mapping[str, float], state: TrainingState, floor: float
) -> bool:
    """Whether the present checkpoint replaces the one that ``rule`` has chosen so far."""
    if rule == "last":
        return True
    # Some methods have, at first, no model of their own to deploy. If that is still so after the
    # last step, the last checkpoint is chosen, since one must be.
    only = state.ended and rule not in state.selected
    if not (only or state.method.selectable(state.last_progress)):
        return False
    clean, robust = scores["val_clean"], scores["val_pgd"]
    # Lists are compared from left to right: the second number decides only if the first is equal.
    score = [robust, clean] if rule == "best" else [float(clean >= floor), clean + robust]
    if rule in state.best and score <= state.best[rule]:
        return False
    state.best[rule] = score
    return True


def recorded(noted: Mapping[str, float]) -> dict[str, Any]:
    """What ``training.json`` records of a selected checkpoint, with mixing ratios if it has any."""
    mixing = {k.removeprefix(_MIX): v for k, v in noted.items() if k.startswith(_MIX)}
    record: dict[str, Any] = {k: v for k, v in noted.items() if not k.startswith(_MIX)}
    return record | ({"mixing": mixing} if mixing else {})


def weights_path(config: CellConfig, directory: Path, rule: Selection) -> Path:
    """The weights that ``rule`` chose: ``deployed.pt`` for the first rule of the configuration."""
    files = RunFiles(directory)
    return files.deployed if rule == config.train.selection[0] else files.deployed_by(rule)


def record_directories(config: CellConfig, directory: Path) -> dict[Selection, Path]:
    """For each rule of selection, the folder for the evaluation of its checkpoint: the run's folder
    for the first rule, ``deployed-RULE`` inside it for the others, so that no evaluation replaces
    another."""
    first, *others = config.train.selection
    files = RunFiles(directory)
    return {first: directory} | {rule: files.chosen_by(rule) for rule in others}


def save_deployed(model: nn.Module, path: Path) -> None:
    """Write the weights of a deployed model.

    Raises:
        BenchmarkError: the disk is full, or the folder cannot be written.
    """
    state = recorded_state(model)
    for name, value in state.items():
        state[name] = value.detach().cpu()
    checkpoint.save(path, state)


def load_deployed(
    config: CellConfig,
    data: Dataset,
    directory: Path,
    device: torch.device,
    rule: Selection | None = None,
) -> nn.Module:
    """The deployed model of a trained cell, in eval mode.

    If its file is missing or damaged and its rule chose the last step, the weights are taken from
    the training checkpoint, with a warning.

    Args:
        rule: a rule of selection; None for the first of the configuration.

    Raises:
        CheckpointError: the file is missing or damaged, or does not fit the method's network.
    """
    rule = rule or config.train.selection[0]
    path = weights_path(config, directory, rule)
    method = build_method(config, data, device)
    try:
        state = checkpoint.load(path)
    except CheckpointError:
        if not _load_last_step(method, directory, rule):
            raise
        warnings.warn(
            f"{path} is missing or damaged; the same weights are taken from checkpoint.pt",
            stacklevel=2,
        )
        return method.deployed().to(device).eval()
    model = method.deployed()
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit the method: {error}") from error
    return model.to(device).eval()


def _load_last_step(method: Method, directory: Path, rule: Selection) -> bool:
    """Load the state after the last step into ``method``, if ``rule`` chose that step and the
    training checkpoint is still that of the last step. Returns whether it was loaded."""
    done = read_training(directory)
    chosen = done if rule == done["checkpoint_rule"] else done.get("also", {}).get(rule, {})
    if chosen.get("selected_epoch") != done["epochs"]:
        return False
    try:
        state = checkpoint.load(RunFiles(directory).checkpoint)
    except CheckpointError:
        return False
    if state["step"] != done["steps"]:
        return False
    method.load_state_dict(state["method"])
    return True
