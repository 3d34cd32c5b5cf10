"""The answer of a study in one sentence: who leads whom, by how much and how sure that is, and
which methods no other beats on both sides of the trade-off."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.report.paired import points
from benchmark.report.study_model import Lead, Row, Study, TradeOff
from benchmark.report.texts import NOTHING, interval_text, percent, seeds_text

# More names than these are counted, with the two ends of the front named.
_MOST_NAMES = 5


def verdict(study: Study) -> str:
    """One sentence for people, from the model that all renderers read.

    The robust side is the union of attacks if the study has one (the strictest claim), else the
    attack whose trade-off a page shows first. "n" and seeds are those of the paired tests.
    """
    if not study.evaluated:
        return NOTHING
    attack, clean = _leads(study)
    shown = [lead for lead in (attack, clean) if lead]
    if not shown:
        return "No method has an accuracy on clean or attacked images yet, so none can lead."
    before = _reservations(study)
    if all(lead.certainty == "alone" for lead in shown):
        return _sentence([*before, _alone(study, shown)])
    told = [lead for lead in shown if lead.certainty != "alone"]
    one_place = len({(lead.n, lead.seeds) for lead in told}) == 1 and told[0].n > 0
    unsure = all(lead.certainty in ("unsure", "level") for lead in told)
    clauses = [_clause(study, lead, unsure, place=not one_place) for lead in told]
    if one_place and not unsure:
        clauses[-1] += f" ({_place(told[0])})"
    if unsure:
        data = _count(told[0]) if one_place else "the data"
        clauses[0] = f"{data} are too few to separate the leading methods: {clauses[0]}"
    trade_off = study.trade_offs.of.get(attack.metrics[0]) if attack and clean else None
    clauses += [text for text in (_front(study, trade_off),) if text]
    if any(lead.certainty == "sure" and lead.seeds == 1 for lead in told):
        clauses.append("with 1 seed, this is sure of these trained networks, not of the methods")
    return _sentence([*before, "; ".join(clauses)])


def _leads(study: Study) -> tuple[Lead | None, Lead | None]:
    """The leaders under attack and on clean images."""
    single = {lead.metrics[0]: lead for lead in study.findings.leads if lead.kind != "sum"}
    union = next((lead for lead in single.values() if lead.kind == "union"), None)
    clean = next((lead for lead in single.values() if lead.kind == "clean"), None)
    first = single.get(study.trade_offs.first or "")
    return union or (first if first is not clean else None), clean


def _reservations(study: Study) -> list[str]:
    """What must be known before the answer is."""
    found = []
    if study.limit is not None:
        found.append("a trial run on a part of the data")
    if study.evaluated < study.planned:
        found.append(f"so far {study.evaluated} of {study.planned} runs are evaluated")
    return [", ".join(found)] if found else []


def _sentence(parts: Sequence[str]) -> str:
    text = ": ".join(parts)
    return text[0].upper() + text[1:] + "."


def _score(lead: Lead) -> str:
    return "clean accuracy" if lead.kind == "clean" else lead.score


def _clause(study: Study, lead: Lead, unsure: bool, place: bool) -> str:
    """ "in PGD-20 accuracy, trades leads with 17.9 %, 5.2 points ahead of pgd-at (...)".

    Args:
        unsure: it was said already that the difference may be chance.
        place: name the images and the seeds.
    """
    text = f"in {_score(lead)}, {lead.first} leads with {percent(lead.value)} %"
    inside = [_place(lead)] if place and lead.n else []
    ahead = f", {points(lead.margin.value)} points ahead of {lead.second}" if lead.margin else ""
    if lead.certainty == "sure" and lead.margin:
        low, high = points(lead.margin.low), points(lead.margin.high)
        inside.insert(0, f"95 % interval {low} to {high}")
        text += ahead
    elif lead.certainty == "level":
        text += f", level with {lead.second}"
    elif lead.certainty == "unsure":
        text += ahead + ("" if unsure else ", which may be chance")
    elif lead.certainty == "withheld":
        verb = "is" if len(lead.withheld) == 1 else "are"
        names = " and ".join(lead.withheld)
        text += f" before {lead.second}, but nothing is concluded, for {names} {verb} under-trained"
    else:
        text += f" before {lead.second}, which could not be tested"
    if inside:
        text += f" ({', '.join(inside)})"
    doubted = [name for name in (lead.first, lead.second) if study.table.row(name).doubts]
    if doubted and lead.kind != "clean":
        text += f", where the attack on {' and '.join(doubted)} is doubtful"
    return text


def _place(lead: Lead) -> str:
    return f"n = {lead.n:,}, {seeds_text([lead.seeds])}"


def _count(lead: Lead) -> str:
    return f"{lead.n:,} images and {seeds_text([lead.seeds])}"


def _front(study: Study, trade_off: TradeOff | None) -> str:
    """Which methods no other beats on both axes, by their means; "" where that says nothing."""
    if trade_off is None or len(trade_off.points) < 2:
        return ""
    names = [point.method for point in trade_off.points]
    fit = [name for name in names if not study.table.row(name).undertrained]
    front = trade_off.front
    if len(fit) < 2:
        return ""
    among = "" if len(fit) == len(names) else ", among the methods that were trained long enough"
    if len(front) == 1:
        return f"on average{among}, {front[0]} is as good as every other method in both, or better"
    if len(front) == len(fit):
        return f"on average{among}, no method beats another in both"
    if len(front) > _MOST_NAMES:
        ends = f"from {front[0]} at the robust end to {front[-1]} at the clean end"
        return (
            f"on average{among}, {len(front)} of {len(fit)} are beaten by no other in both, {ends}"
        )
    listed = f"{', '.join(front[:-1])} or {front[-1]}"
    return f"on average{among}, no method beats {listed} in both"


def _alone(study: Study, shown: Sequence[Lead]) -> str:
    """The figures of the only method, with their intervals."""
    row = study.table.row(shown[0].first)
    figures = []
    for lead in reversed(shown):
        summary = row.summaries.get(lead.metrics[0])
        ends = f" {interval_text(summary)}" if summary else ""
        n = f", n = {summary.n:,}" if summary and summary.n else ""
        figures.append(f"{_score(lead)} {percent(lead.value)} %{ends}{n}")
    doubts = _held_against(row)
    return f"only {row.method} is evaluated, over {seeds_text([row.evaluated])}: " + "; ".join(
        [*figures, *doubts]
    )


def _held_against(row: Row) -> list[str]:
    found = ["its attack results are doubtful"] if row.doubts else []
    return found + (["it is under-trained"] if row.undertrained else [])
