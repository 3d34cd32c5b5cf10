"""What was measured of the theorems, as text and figures, from ``theory.json`` alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.core.files import write_text
from benchmark.diagnosis.signature import ERRORS
from benchmark.records.schema import Apart, Inequality, Theory, TheoryPoint
from benchmark.records.theory import DEPLOYED, MIXED, OWN
from benchmark.report.families import LEARNER_COLOURS
from benchmark.report.figures import FORMATS, STYLE, figure, save


def write_theory_report(measured: Theory, target: Path) -> list[Path]:
    """Write ``theory.md`` and the figures to ``target``; returns them, the text first."""
    text = target / "theory.md"
    write_text(text, theory_md(measured))
    written = [text]
    for name, draw in (("risks", risks), ("slack", slack), ("stability", stability)):
        fig = draw(measured)
        if fig is None:  # of an earlier measurement
            for suffix in FORMATS:
                (target / f"{name}{suffix}").unlink(missing_ok=True)
        else:
            written += save(fig, target / name)
    return written


def theory_md(measured: Theory) -> str:
    """What was measured, in words and tables."""
    tasks = "; ".join(f"{name}: {text}" for name, text in measured.tasks.items())
    parts = [
        f"# Theory, measured: {measured.run}",
        f"Risks are means over {measured.images:,} held-out images. Tasks: {tasks}.",
        _regrets(measured),
    ]
    points = [point for point in measured.points if point.checked]
    if not points:
        parts.append(
            "After the first point, no learner ever differed from the deployed network: there is "
            "nothing to check."
        )
        return "\n\n".join(parts) + "\n"
    parts += [_risks(points[-1]), _bounds(measured, points)]
    if measured.other:
        parts.append(_one_image(measured, points))
    return "\n\n".join(parts) + "\n"


def _regrets(measured: Theory) -> str:
    rows = [
        [name, _number(found.mean), _number(found.best), _number(found.regret)]
        for name, found in measured.regrets.items()
    ]
    head = ["learner", "mean risk of its path", "its best risk", "regret"]
    return (
        "## Regret of each learner on its own task\n\n"
        f"{_table(head, rows)}\n\n"
        f"Over {len(measured.points)} points of training. The regret is the mean less the best of "
        "these points; against the best parameters there are it is larger."
    )


def _risks(point: TheoryPoint) -> str:
    tasks = list(next(iter(point.risks.values())))
    rows = [[name, *(_number(of[task]) for task in tasks)] for name, of in point.risks.items()]
    ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in point.ratios.items())
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in point.weights.items())
    return (
        f"## Risks at {_where(point)}\n\n"
        f"{_table(['network', *tasks], rows)}\n\n"
        f"Mixing ratios of this step: {ratios}; weights in the moving average: {weights}."
    )


def _bounds(measured: Theory, points: Sequence[TheoryPoint]) -> str:
    names = {**{task: f"task {task}" for task in measured.tasks}, MIXED: MIXED, OWN: f"{OWN} alone"}
    found = {title: [point.bounds[name] for point in points] for name, title in names.items()}
    last = points[-1].bounds
    transfer = last[MIXED].right - last[OWN].right
    return (
        "## Is the deployed network's risk bounded by those of its learners?\n\n"
        f"{_checks(points, found)}\n\n"
        f"*task* and *{MIXED}*: at most the weighted mean of the learners' risks on the same task, "
        "that is its best risk and the learners' regrets on it; convexity of the risk implies "
        f"this. *{OWN} alone*: at most the weighted mean of what each learner has on its own task; "
        "convexity does not imply this. The difference of the two right sides, what learners lose "
        f"on each other's tasks, is {_signed(transfer)} at {_where(points[-1])}."
    )


def _one_image(measured: Theory, points: Sequence[TheoryPoint]) -> str:
    last = _apart(points[-1])
    found = {name: [_apart(point).bounds[name] for point in points] for name in last.bounds}
    tasks = list(measured.tasks)
    rows = [
        [
            name,
            f"{distance:.3g} ({100 * distance / last.norm:.2g} %)",
            *(f"{_number(last.mean[name][t])} / {_number(last.largest[name][t])}" for t in tasks),
        ]
        for name, distance in last.distances.items()
    ]
    head = ["network", "distance of parameters", *(f"loss difference, {t}" for t in tasks)]
    left_out = " and ".join("none" if n is None else f"image {n}" for n in measured.without)
    return (
        f"## What one training image changes\n\n"
        f"Against {measured.other}; training images left out: {left_out}. At {_where(points[-1])}, "
        "distances also in per cent of the norm of the deployed network, differences of losses as "
        f"mean / largest over images:\n\n{_table(head, rows)}\n\n"
        "Is what it changes in the deployed network bounded by the convex combination of what it "
        f"changes in the learners?\n\n{_checks(points, found)}\n\n"
        "*parameters* follows from the mixing alone, up to what happens between two points; for "
        "losses no such bound follows without further assumptions. Losses of each learner are "
        "those on its own task."
    )


def _checks(points: Sequence[TheoryPoint], bounds: Mapping[str, Sequence[Inequality]]) -> str:
    rows = []
    for name, found in bounds.items():
        fails = [one for one in found if one.slack < 0]
        clear = [one for one in fails if one.slack < -ERRORS * one.error]
        least = min(range(len(found)), key=[one.slack for one in found].__getitem__)
        last = found[-1]
        rows.append(
            [
                name,
                f"{len(found) - len(fails)} of {len(found)}",
                str(len(clear)) if last.error else "",
                f"{_with_error(found[least])} at {100 * points[least].progress:.0f} %",
                f"{_number(last.left)} {'≤' if last.slack >= 0 else '>'} {_number(last.right)}",
                _with_error(last),
            ]
        )
    head = ["bound", "holds at", "clearly violated at", "least slack", "at the end", "slack there"]
    return (
        f"{_table(head, rows)}\n\nAt the points after the first where learners and deployed "
        "network differ. Steps between two points count with the larger value at the two. Slack: "
        "right side less left side, with its standard error over images (none for parameters and "
        f"for largest differences). Clearly violated: by more than {ERRORS:g} standard errors."
    )


def _apart(point: TheoryPoint) -> Apart:
    assert point.stability is not None
    return point.stability


def _where(point: TheoryPoint) -> str:
    return f"step {point.step} ({100 * point.progress:.0f} % of training)"


def _with_error(one: Inequality) -> str:
    return _signed(one.slack) + (f" ± {_number(one.error)}" if one.error else "")


def _number(value: float) -> str:
    return f"{value:.3g}" if 0 < abs(value) < 0.001 else f"{value:.3f}"


def _signed(value: float) -> str:
    return _number(value).replace("-", "−")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_BLACK, _GREY = "#222222", "#888888"


def risks(measured: Theory) -> Figure:
    """Risk of every learner and of the deployed network on each task, and the bound."""
    points, colours = measured.points, _colours(measured)
    with mpl.rc_context(STYLE):
        fig, axes = figure(0.5 + 1.5 * len(measured.tasks), len(measured.tasks), sharex=True)
        for ax, task in zip(axes[:, 0], measured.tasks, strict=True):
            for name in (*measured.tasks, DEPLOYED):
                _line(ax, measured, [p.risks[name][task] for p in points], name, colours[name])
            _line(ax, measured, [p.bounds[task].right for p in points], "bound", _GREY, "--")
            ax.set_yscale("log")
            ax.set_ylabel(f"Risk, {task}")
        return _finished(fig, axes)


def slack(measured: Theory) -> Figure:
    """How loose each bound of the deployed network's risk is, from the second point on."""
    looks = {task: (f"task {task}", _colours(measured)[task], "-") for task in measured.tasks}
    looks |= {MIXED: (MIXED, _BLACK, "-"), OWN: (f"{OWN} alone", _BLACK, "--")}
    with mpl.rc_context(STYLE):
        fig, axes = figure(2.2)
        for name, look in looks.items():
            bounds = [point.bounds[name] for point in measured.points]
            loose = [math.nan, *(100 * one.slack / one.left for one in bounds[1:])]
            _line(axes[0, 0], measured, loose, *look)
        axes[0, 0].axhline(0, color=_GREY, lw=0.6, zorder=0)
        axes[0, 0].set_yscale("symlog", linthresh=1)
        axes[0, 0].set_ylabel("Slack (% of the left side)")
        return _finished(fig, axes)


def stability(measured: Theory) -> Figure | None:
    """What one image changes, in parameters and in losses, against the convex combination."""
    if measured.other is None:
        return None
    points, colours = [_apart(point) for point in measured.points], _colours(measured)
    with mpl.rc_context(STYLE):
        fig, axes = figure(3.6, 2, sharex=True)
        top, bottom = axes[:, 0]
        for name in (*measured.tasks, DEPLOYED):
            _line(top, measured, [p.distances[name] for p in points], name, colours[name])
        for name in measured.tasks:
            _line(bottom, measured, [p.mean[name][name] for p in points], name, colours[name])
        left = [p.bounds["mean loss"].left for p in points]
        _line(bottom, measured, left, DEPLOYED, colours[DEPLOYED])
        for ax, name in ((top, "parameters"), (bottom, "mean loss")):
            _line(ax, measured, [p.bounds[name].right for p in points], "bound", _GREY, "--")
        top.set_ylabel("Distance of parameters")
        bottom.set_ylabel("Mean loss difference")
        return _finished(fig, axes)


def _colours(measured: Theory) -> dict[str, str]:
    looks = {name: LEARNER_COLOURS[i % 5] for i, name in enumerate(measured.tasks)}
    return {**looks, DEPLOYED: _BLACK}


def _line(
    ax: Axes,
    measured: Theory,
    y: Sequence[float],
    label: str,
    colour: str,
    style: str = "-",
) -> None:
    x = [100 * point.progress for point in measured.points]
    ax.plot(x, y, color=colour, ls=style, lw=0.9, marker=".", ms=2.5, label=label)


def _finished(fig: Figure, axes: Mapping[tuple[int, int], Axes]) -> Figure:
    axes[-1, 0].set_xlabel("Training done (%)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=3)
    return fig
