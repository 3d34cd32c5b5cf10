"""What AutoAttack on a budget is worth: coverage and half-width at equal cost.

    python -m studies.budget results/aa-budget > results/aa-budget/draws.json

Where AutoAttack met every image, the verdict on each survivor is known, so the sample is drawn a
thousand times anew. Leads are not on record, so these networks have no thin stratum here. Two other
ways have the same cost in passes: the former one (PGD alone, one random sample of its survivors,
equal tails), and AutoAttack on a random subset of all images. Two networks are made up, with 10,000
images, clean accuracy 85 %, 48 % after PGD and 46 % after AutoAttack: one whose breaks lie where
margins are small and of which APGD finds nine in ten, an assumption; and one where neither tells
anything. The record is results/aa-budget/draws.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from scipy import stats

from benchmark.attacks.autoattack import Attack
from benchmark.core.errors import DataError
from benchmark.metrics import budget
from benchmark.metrics.budget import Cheap, Draw
from benchmark.metrics.in_ball import attack_work
from benchmark.metrics.metric import FORWARD
from benchmark.records.statistics import hypergeometric_interval
from studies.command import new_app, start

app = new_app()

DRAWS = 1000
STAGES: tuple[Attack, ...] = ("apgd-ce", "apgd-t", "fab-t", "square")
# Passes on an image that withstands everything: AutoAttack's, and those of the cheap attacks.
WHOLE = attack_work(*STAGES)
APGD = budget.APGD_CLASSES * (budget.APGD_STEPS + 1 + FORWARD)
PGD = budget.CHEAP_PASSES - APGD


@dataclass(frozen=True)
class Network:
    """A network that AutoAttack attacked whole.

    Attributes:
        clean: images that are right when clean.
        cheap: what the cheap attacks left of all images.
        robust: AutoAttack's verdicts, bool [n].
        per_image: passes of AutoAttack on a random image, in input-gradient passes.
        ordered: the leads are known, so there may be a thin stratum.
    """

    name: str
    clean: int
    cheap: Cheap
    robust: torch.Tensor
    per_image: float
    ordered: bool


def made_up(name: str, *, found: float, depth: float, images: int = 10_000) -> Network:
    """A network with accuracies 85 % clean, 48 % after PGD, 46 % after AutoAttack.

    Args:
        found: share of the breaks beyond PGD that APGD finds.
        depth: scale of the places of the breaks among PGD's survivors, thinnest first, as a share
            of the survivors; 0 if the margin says nothing.
    """
    rng = np.random.default_rng(0)
    total, breaks = round(0.48 * images), round(0.02 * images)
    weights = np.exp(-np.arange(total) / (depth * total)) if depth else np.ones(total)
    broken = rng.choice(total, breaks, replace=False, p=weights / weights.sum())
    late = torch.zeros(images, dtype=torch.bool)
    late[broken[: round(found * breaks)]] = True
    alive = torch.arange(images) < total
    robust = alive.clone()
    robust[broken] = False
    lead = torch.arange(images, dtype=torch.float)
    shares = (0.85, 0.48, 0.46, 0.46)
    per_image = sum(share * attack_work(stage) for share, stage in zip(shares, STAGES, strict=True))
    cheap = Cheap(alive & ~late, lead, lead, late)
    return Network(name, round(0.85 * images), cheap, robust, per_image, ordered=True)


def recorded(folder: Path) -> list[Network]:
    """The networks of a record, one per estimate that has the whole attack beside it.

    Raises:
        DataError: an estimate with a thin stratum, whose order by margin is not on record.
    """
    entries = json.loads((folder / "evaluation.json").read_text())["metrics"]
    outcomes = pd.read_parquet(folder / "outcomes.parquet")
    networks = []
    for name, entry in entries.items():
        whole, detail, n = name.replace("_estimate", ""), entry["detail"], entry["n"]
        if entry["form"] != "estimate" or whole not in entries:
            continue
        if detail["thin"]:
            raise DataError(f"{folder}: {name} has a thin stratum; record it with a smaller budget")
        survived, late = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
        survived[detail["order"]] = True
        # Which images APGD fooled is not on record; without a thin stratum their number will do.
        late[(~survived).nonzero().squeeze(1)[: detail["late"]]] = True
        robust = torch.tensor(outcomes[whole].to_numpy(dtype=bool))
        shares = [entries["clean"]["mean"], *entries[whole]["detail"]["after"].values()][:-1]
        per_image = sum(s * attack_work(stage) for s, stage in zip(shares, STAGES, strict=True))
        cheap = Cheap(survived, torch.zeros(n), torch.zeros(n), late)
        label = f"{folder.name}, {whole}"
        clean = entries["clean"]["correct"]
        networks.append(Network(label, clean, cheap, robust, per_image, ordered=False))
    return networks


def expected_width(broken: int, drawn: int, total: int) -> float:
    """Of the interval with equal tails, in images, over all samples of ``drawn``."""
    width = 0.0
    for seen in range(min(broken, drawn) + 1):
        chance = float(stats.hypergeom.pmf(seen, total, broken, drawn))
        if chance > 1e-6:
            found = hypergeometric_interval(drawn - seen, drawn, total)
            width += chance * (found.high - found.low) * total
    return width


def compare(network: Network, former: int, draws: int = DRAWS) -> dict[str, Any]:
    """The three ways at the cost of the former one with ``former`` survivors attacked.

    Half-widths are means over samples, in percentage points of all images.
    """
    n, cheap = len(network.robust), network.cheap
    survivors, robust = int(cheap.survived.sum()), int(network.robust.sum())
    after_pgd = survivors + int(cheap.late.sum())
    cost = network.clean * PGD + former * WHOLE
    # As if APGD met everything that PGD left, although part of it is spared.
    now = int(former - after_pgd * APGD / WHOLE)
    subset = min(n, int(cost / network.per_image))
    thin = budget.thin_stratum(cheap, now) if network.ordered else 0

    @cache
    def limits(sure: int, right: int) -> tuple[float, float]:
        verdicts = torch.arange(now) < sure  # the thin ones, then the sample
        verdicts[thin:] = torch.arange(now - thin) < right
        order = torch.arange(survivors)
        found = Draw(order, thin, verdicts, (now,)).interval(n)
        return found.low, found.high

    covered, width = 0, 0.0
    for seed in range(draws):
        verdicts = network.robust[Draw.fresh(cheap, seed, thin).order[:now]]
        low, high = limits(int(verdicts[:thin].sum()), int(verdicts[thin:].sum()))
        covered += low - 1e-9 <= robust / n <= high + 1e-9
        width += (high - low) / draws
    before = expected_width(after_pgd - robust, former, after_pgd) / n
    return {
        "share_of_whole": round(cost / (n * network.per_image), 3),
        "attacked_formerly": former,
        "attacked": now,
        "thin": thin,
        "subset": subset,
        "coverage": covered / draws,
        "halfwidth": round(50 * width, 3),
        "halfwidth_formerly": round(50 * before, 3),
        "halfwidth_subset": round(50 * expected_width(n - robust, subset, n) / n, 3),
        "ratio": round(width / before, 3),
    }


def known() -> Network:
    """The made-up network whose breaks APGD and the margins tell of."""
    return made_up("85 / 48 / 46, breaks at small margins", found=0.9, depth=0.05)


def unknown() -> Network:
    """The made-up network whose breaks nothing tells of."""
    return made_up("85 / 48 / 46, breaks anywhere", found=0.0, depth=0.0)


@app.command()
def main(
    folder: Annotated[Path, typer.Argument(help="Folder of records, each with both attacks.")],
) -> None:
    """Compare the three ways on the networks of FOLDER and on two made up; prints JSON."""
    found = [n for path in sorted(folder.glob("*/evaluation.json")) for n in recorded(path.parent)]
    tasks = [(network, former) for network in found for former in (60, 100, 150)]
    tasks += [(network, former) for network in (known(), unknown()) for former in (410, 1000)]
    rows = [{"network": network.name, **compare(network, former)} for network, former in tasks]
    print(json.dumps({"draws": DRAWS, "rows": rows}, indent=2))


if __name__ == "__main__":
    start(app)
