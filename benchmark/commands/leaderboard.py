"""RobustBench's leaderboards: what each measures, and the reasons why it would refuse a run.

Boards, numbers of images and keys are those of RobustBench 1.1.1 (2010.09670).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, field_validator

from benchmark.config.suite import CellConfig
from benchmark.core.config import Config
from benchmark.core.threat import exact
from benchmark.data.source import DATASETS, Board

Threat = Literal["linf", "l2", "corruptions"]

# RobustBench's own names of the threat models; folders are called so.
FOLDERS: dict[Threat, str] = {"linf": "Linf", "l2": "L2", "corruptions": "corruptions"}

_ATTACKS = ["apgd-ce", "apgd-t", "fab-t", "square"]
_TARGETS = 9
_SEVERITIES = [1, 2, 3, 4, 5]


def board_of(dataset: str, threat: Threat) -> Board | None:
    """RobustBench's board of the data set under the threat model, if there is one."""
    return DATASETS.get(dataset).boards.get(threat) if dataset in DATASETS else None


def boards() -> list[tuple[str, Threat]]:
    """(data set, threat model) of every board."""
    return [
        (name, threat)
        for name in DATASETS.where(lambda source: bool(source.boards))
        for threat in FOLDERS
        if board_of(name, threat)
    ]


def _percent(value: Any) -> str:
    """Two decimals, as the boards write accuracies."""
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{value!r} is not a number in per cent") from error
    if isinstance(value, bool) or not 1 < number <= 100:
        raise ValueError(f"{value!r} is not an accuracy in per cent; write 53.08, not 0.5308")
    return f"{number:.2f}"


Percent = Annotated[str, BeforeValidator(_percent)]


class Paper(Config):
    """Information that only the author has: an ``--info`` file. Accuracies are in per cent.

    Attributes:
        id: NameYearFirstWordOfTitle, with a suffix for the model: Rade2021Helper_R18_ddpm.
        name, authors, link, venue: of the paper.
        architecture: as the board shows it, such as WideResNet-28-10.
        reported: robust accuracy in the paper.
        additional_data: trained on images beyond the data set's own; known of a run that has
            ``dataset.extra``.
        unreliable, external, footnote: see RobustBench; external replaces the rank's accuracy.
        code: URL of checkpoint and code, for the issue.
        license: MIT, or the URL of another; None keeps the model out of the Model Zoo.
    """

    id: str | None = None
    name: str | None = None
    authors: str | None = None
    link: str | None = None
    venue: str | None = None
    architecture: str | None = None
    reported: Percent | None = None
    additional_data: bool | None = None
    unreliable: bool | None = None
    external: Percent | None = None
    footnote: str | None = None
    code: str | None = None
    license: str | None = None

    @field_validator("id")
    @classmethod
    def _check_id(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z]+\d{4}[\w-]+", value, re.ASCII):
            raise ValueError(
                f"{value!r} is not of the form NameYearFirstWordOfTitle, as Rade2021Helper_R18"
            )
        return value

    @field_validator("link", "code")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://\S+$", value):
            raise ValueError(f"{value!r} is not a URL")
        return value

    def missing(self) -> list[str]:
        """Keys that the board needs and that are not given."""
        optional = {"unreliable", "external", "footnote", "code", "license"}
        return [key for key, value in self if value is None and key not in optional]


def reported_metric(metrics: Mapping[str, Any], threat: Threat, board: Board | None) -> str | None:
    """The metric whose accuracy is the robust accuracy under ``threat``; None without any.

    Of several, it is the one for which the board has the fewest objections. Estimates are excluded.
    """
    found = [
        name
        for name, entry in metrics.items()
        if (
            entry["kind"] == "corruptions" and not entry["detail"].get("threat")
            if threat == "corruptions"
            else _is_autoattack(entry, threat) and not entry["form"]
        )
    ]
    return min(found, key=lambda name: len(_against(name, metrics[name], board)), default=None)


def _is_autoattack(entry: Mapping[str, Any], threat: Threat) -> bool:
    return bool(entry["kind"] == "autoattack" and entry["detail"].get("norm") == threat)


def violations(
    threat: Threat,
    config: CellConfig,
    evaluation: Mapping[str, Any],
) -> list[str]:
    """The reasons why the board would refuse the run, each as a clause; empty if it would accept.

    Args:
        config, evaluation: of the run; the latter in the form of its JSON file.
    """
    name, metrics = config.dataset.name, evaluation["metrics"]
    board = board_of(name, threat)
    reasons = []
    if board is None:
        known = ", ".join(f"{dataset} {threat}" for dataset, threat in boards())
        reasons.append(f"there is no board for {name} under {threat} (there are {known})")
    else:
        reasons += _against_images(board, config, evaluation["dataset"])
    clean = next((n for n, entry in metrics.items() if entry["kind"] == "clean"), None)
    robust = reported_metric(metrics, threat, board)
    wanted = "corruptions" if threat == "corruptions" else f"AutoAttack under {threat}"
    for metric, what in ((clean, "clean accuracy"), (robust, wanted)):
        if metric is None:
            reasons.append(f"{what} was not measured")
        else:
            reasons += _against(metric, metrics[metric], board)
    if robust is None:
        reasons += [
            f"{other} is {'an' if entry['form'] == 'estimate' else 'a'} {entry['form']}, which no "
            "board takes for AutoAttack"
            for other, entry in metrics.items()
            if _is_autoattack(entry, threat)
        ]
    reliability = evaluation["reliability"]
    if not reliability["checked"]:
        reasons.append("the reliability checks were not made")
    for finding in reliability["findings"]:
        reasons.append(f"reliability finding {finding['name']}: {finding['text']}")
    return reasons


def _against_images(board: Board, config: CellConfig, dataset: Mapping[str, Any]) -> list[str]:
    reasons = []
    limit = dataset["limit"] or config.dataset.limit or config.dataset.test_limit
    if limit:
        reasons.append(f"the run has a limit of {limit} images")
    if dataset["images"] != board.images:
        reasons.append(
            f"the test set has {dataset['images']:,} images; the board's are {board.images:,}"
            + (" fixed ones (keep those alone in val/)" if board.chosen else "")
        )
    if board.size and (config.dataset.size or board.size) != board.size:
        reasons.append(f"the images were resized to {config.dataset.size} pixels")
    return reasons


def _against(name: str, entry: Mapping[str, Any], board: Board | None) -> list[str]:
    """The board's objections to a measurement, apart from those to its images."""
    detail, reasons = entry["detail"], []
    if board and entry["n"] != board.images:
        reasons.append(f"{name} was measured on {entry['n']:,} of {board.images:,} images")
    if entry["kind"] == "autoattack":
        if board and exact(detail["eps"]) not in map(exact, board.eps):
            eps = " or ".join(board.eps)
            reasons.append(f"{name} has eps = {detail['eps']}; the board's is {eps or 'none'}")
        standard = detail.get("version") == "standard" and detail.get("attacks") == _ATTACKS
        if not standard or set(detail.get("targets", {}).values()) != {_TARGETS}:
            reasons.append(
                f"{name} is not standard AutoAttack ({', '.join(_ATTACKS)}; {_TARGETS} targets)"
            )
        reasons += [f"{name}: AutoAttack warns: {text}" for text in detail.get("warnings", ())]
    if entry["kind"] == "corruptions":
        if detail.get("source") != "published":
            reasons.append(f"{name} was measured on generated images, not on the published files")
        if detail.get("severities") != _SEVERITIES:
            reasons.append(f"{name} lacks some of the severities 1 to 5")
    return reasons
