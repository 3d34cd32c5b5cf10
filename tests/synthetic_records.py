"""Made-up records in the form that runs leave, so that reports are tested without training."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from made_entries import DATA, Entry, evaluation_of, made

from benchmark.core.environment import PACKAGES
from benchmark.core.files import write_frame
from benchmark.core.method import family_of
from benchmark.records.files import RunFiles, SuiteFiles
from benchmark.records.schema import (
    write_configuration,
    write_environment,
    write_evaluation,
    write_plan,
    write_training,
)

# label: (method name, clean, PGD-20, AutoAttack, gradient passes per image)
ELEVEN: dict[str, tuple[str, float, float, float, float]] = {
    "natural": ("natural", 0.945, 0.002, 0.0, 1),
    "pgd-at": ("pgd-at", 0.826, 0.513, 0.477, 11),
    "trades": ("trades", 0.818, 0.528, 0.492, 12),
    "mart": ("mart", 0.789, 0.546, 0.478, 12),
    "joint": ("joint", 0.880, 0.462, 0.421, 12),
    "output-ensemble": ("output-ensemble", 0.902, 0.330, 0.251, 12),
    "weight-interpolation": ("weight-interpolation", 0.871, 0.395, 0.342, 12),
    "generalist-d": ("generalist-d", 0.884, 0.457, 0.430, 12),
    "generalist-d-norms": ("generalist-d", 0.869, 0.471, 0.432, 22),
    "generalist-t": ("generalist-t", 0.862, 0.487, 0.446, 23),
    "generalist-official": ("generalist-d", 0.890, 0.443, 0.412, 12),
}
TRAIN = {"epochs": 30, "batch_size": 128, "selection": ["last"], "precision": "fp32"}
ENVIRONMENT = {
    "python": "3.11.7",
    **dict.fromkeys(PACKAGES, "1.0.0"),
    "platform": "Linux",
    "machine": "x86_64",
    "device": "cpu",
    "processor": "",
    "threads": 1,
    "git": "0123abc",
    "date": "2026-11-23T00:00:00+00:00",
}
CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur",
    "zoom_blur", "snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate",
    "jpeg_compression",
)  # fmt: skip


def write_suite(
    out: Path,
    methods: Mapping[str, tuple[str, float, float, float, float]] = ELEVEN,
    *,
    seeds: Sequence[int] = (0,),
    n: int = 1000,
    n_aa: int = 400,
    dataset: str = "cifar10",
    limit: int | None = None,
    missing: Sequence[tuple[str, int]] = (),
    corruptions: Sequence[str] = CORRUPTIONS,
    spread: float = 0.006,
    width: int = 16,
) -> Path:
    """Write a suite folder; cells in ``missing`` are planned but have no folder."""
    plan = [
        {"slug": f"{label}-{dataset}-s{seed}", "label": label, "seed": seed}
        for label in methods
        for seed in seeds
    ]
    suite = {
        "name": "synthetic",
        "title": "Synthetic suite",
        "description": "Made-up figures.",
        "hardware": "",
        "methods": list(methods),
        "seeds": list(seeds),
        "dataset": {"name": dataset, "limit": limit},
        "model": {"name": "small-resnet", "width": width},
        "train": TRAIN,
        "evaluation": [],
        "plan": plan,
    }
    write_plan(out, suite)
    for cell in plan:
        label, seed = str(cell["label"]), int(str(cell["seed"]))
        if (label, seed) not in missing:
            folder = SuiteFiles(out).cell(str(cell["slug"]))
            write_cell(
                folder,
                label,
                methods[label],
                seed,
                n,
                n_aa,
                dataset,
                limit,
                corruptions,
                spread,
                width,
            )
    return out


def write_cell(
    folder: Path,
    label: str,
    figures: tuple[str, float, float, float, float],
    seed: int,
    n: int,
    n_aa: int,
    dataset: str,
    limit: int | None,
    corruptions: Sequence[str],
    spread: float,
    width: int,
) -> None:
    """One finished cell; images have a common difficulty, so outcomes of methods are correlated."""
    name, clean, pgd, aa, passes = figures
    rng = np.random.default_rng([zlib.crc32(label.encode()), seed])
    difficulty = np.random.default_rng(7).random(n)
    shift = spread * rng.standard_normal()

    def right(accuracy: float) -> np.ndarray:
        noisy = difficulty + 0.08 * rng.standard_normal(n)
        threshold = np.quantile(noisy, np.clip(accuracy + shift, 0, 1))
        return np.asarray(noisy < threshold) if accuracy > 0 else np.zeros(n, dtype=bool)

    columns: dict[str, object] = {"index": np.arange(n), "label": np.arange(n) % 10}
    columns["clean"] = pd.array(right(clean), dtype="boolean")
    columns["pgd20_linf"] = pd.array(right(pgd), dtype="boolean")
    columns["pgd20_l2"] = pd.array(right(min(1.0, pgd * 1.15 + 0.05)), dtype="boolean")
    survived = pd.array(right(aa), dtype="boolean")
    survived[n_aa:] = pd.NA
    columns["aa_linf"] = survived
    per_corruption = {}
    for i, corruption in enumerate(corruptions):
        values = []
        for severity in range(1, 6):
            accuracy = clean * (0.97 - severity * (0.02 + 0.012 * (i % 7)))
            outcome = right(accuracy)
            columns[f"corruptions/{corruption}/{severity}"] = pd.array(outcome, dtype="boolean")
            values.append(float(outcome.mean()))
        per_corruption[corruption] = values
    frame = pd.DataFrame(columns)

    linf = {"norm": "linf", "eps": "8/255", "step": "2/255", "steps": 20}
    l2 = {"norm": "l2", "eps": "128/255", "step": "15/255", "steps": 20}
    metrics: dict[str, Entry] = {}
    for metric, settings, detail in (
        ("clean", {"kind": "clean"}, {}),
        ("pgd20_linf", {"kind": "pgd", "threat": linf}, {"threat": linf, "restarts": 1}),
        ("pgd20_l2", {"kind": "pgd", "threat": l2}, {"threat": l2, "restarts": 1}),
        (
            "aa_linf",
            {"kind": "autoattack", "n": n_aa},
            {"norm": "linf", "eps": "8/255", "version": "standard"},
        ),
    ):
        known = frame[metric].dropna()
        count, correct = len(known), int(known.sum())
        metrics[metric] = made(settings, detail, n=count, correct=correct)
    if corruptions:
        detail = {
            "source": "generated",
            "severities": [1, 2, 3, 4, 5],
            "per_corruption": per_corruption,
        }
        mean = float(np.mean(list(per_corruption.values())))
        metrics["corruptions"] = made({"kind": "corruptions"}, detail, n=n, mean=mean)

    config = {
        "suite": "synthetic",
        "dataset": {"name": dataset, "limit": limit},
        "model": {"name": "small-resnet", "width": width},
        "method": {"name": name, "label": label, "recipe": {}},
        "train": TRAIN,
        "seed": seed,
    }
    write_configuration(
        folder,
        {
            "hash": f"{zlib.crc32(folder.name.encode()):08x}",
            "family": family_of(name),
            "config": config,
        },
    )
    write_environment(folder, ENVIRONMENT)
    lines = []
    steps = 30 * n // 128
    for epoch in range(1, 31):
        progress = epoch / 30
        rise = 1 - np.exp(-4 * progress)
        point: dict[str, object] = {
            "epoch": epoch,
            "progress": progress,
            "step": int(progress * steps),
            "seconds": 4.0 * epoch,
            "gradient_passes": int(passes * progress * steps * 128),
            "lr/global": 0.1,
            "val_clean": float(np.clip(clean * rise + 0.01 * rng.standard_normal(), 0, 1)),
            "val_pgd": float(np.clip(pgd * rise + 0.008 * rng.standard_normal(), 0, 1)),
        }
        if name.startswith("generalist"):
            share = 0.9 - 0.5 * progress
            learners = ["linf", "natural"] if name == "generalist-d" else ["linf", "l2", "natural"]
            rest = (1 - share) / (len(learners) - 1)
            for i, learner in enumerate(learners):
                point[f"mix/{learner}"] = share if i == 0 else rest
                point[f"distance/{learner}"] = (0.3 + 0.2 * i) * (1 + epoch % 5)
        lines.append(json.dumps(point))
    RunFiles(folder).curves.write_text("\n".join(lines) + "\n", encoding="utf-8")
    summary = {
        "data": DATA,
        "steps": steps,
        "epochs": 30,
        "images": steps * 128,
        "seconds": 120.0 * passes,
        "processes": {"learners": 1, "data": 1},
        "gradient_passes": passes * steps * 128,
        "passes_per_image": passes,
        "inference_passes": 1,
        "checkpoint_rule": "last",
        "selected_epoch": 30.0,
        "val_clean": clean,
        "val_pgd": pgd,
        "parameters": 78042,
        "train_images": n,
        "val_images": 100,
    }
    write_training(folder, summary)
    write_frame(RunFiles(folder).outcomes, frame)
    write_evaluation(folder, evaluation_of(metrics, name=dataset, images=n, limit=limit))
