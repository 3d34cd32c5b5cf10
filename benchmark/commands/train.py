"""Methods without a suite file: a suite made of what the caller names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmark.commands.run import read_cell_config
from benchmark.config.suite import MethodEntry, SuiteConfig, build_suite
from benchmark.core.errors import BenchmarkError, ConfigError
from benchmark.records.files import SuiteFiles
from benchmark.records.schema import read_plan
from benchmark.records.study import nested


def training_suite(
    dataset: str,
    model: str,
    methods: Sequence[Any],
    seeds: Sequence[int],
    overrides: Iterable[str] = (),
    extra: Mapping[str, Any] | None = None,
    *,
    epochs: float | None = None,
    eps: str | float | None = None,
) -> SuiteConfig:
    """Every method on a data set by name, with an architecture by name.

    Args:
        methods: names, or mappings of name and hyper-parameters.
        overrides, extra: see ``load_suite``.
        epochs: of training.
        eps: the l_inf radius of training.

    Raises:
        ConfigError: see ``load_suite``; a setting that is given in two ways.
    """
    own = {"train.epochs": epochs, "threats.linf.eps": eps}
    given = [f"{key}={value}" for key, value in own.items() if value is not None]
    for key in (text.partition("=")[0] for text in given):
        if nested(extra, *key.split(".")) is not None:
            raise ConfigError(
                f"{key} is given twice, as {key.rpartition('.')[2]} and among the settings; keep "
                "one of them"
            )
    base = {
        "name": f"train-{dataset}",
        "title": f"Methods on {dataset}",
        "dataset": {"name": dataset},
        "model": {"name": model},
        "methods": list(methods),
        "seeds": list(seeds),
    }
    return build_suite(base, [*overrides, *given], extra)


def with_earlier(suite: SuiteConfig, out: Path) -> SuiteConfig:
    """``suite`` with the methods that were trained in ``out`` before in front of its own, so that
    they stay in its plan; a label of both is that of ``suite``.

    Raises:
        BenchmarkError: a damaged plan.
    """
    if not SuiteFiles(out).plan.exists():
        return suite
    entries = {}
    for item in read_plan(out)["plan"]:
        with suppress(BenchmarkError):  # damaged, or by code that has changed: it leaves the plan
            label, config = read_cell_config(SuiteFiles(out).cell(item["slug"]))
            entries[label] = MethodEntry(label=label, recipe=config.recipe)
    entries |= {entry.label: entry for entry in suite.methods}
    return suite.model_copy(update={"methods": tuple(entries.values())})
