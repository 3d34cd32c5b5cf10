"""A verdict for people (Markdown) and for CI (JUnit XML)."""

from __future__ import annotations

from xml.etree import ElementTree

from benchmark.gate.baseline import Baseline
from benchmark.gate.verdict import ALPHA, Comparison, Verdict
from benchmark.report.markdown import markdown_table


def markdown(verdict: Verdict, baseline: Baseline) -> str:
    """First the figures that changed, then all comparisons."""
    moved = verdict.moved
    lines = [f"# Check of {baseline.scope.suite}: {headline(verdict)}", ""]
    if verdict.other_settings:
        lines += [f"**Other settings.** {verdict.other_settings}", ""]
    for item in moved:
        lines.append(f"- {moved_text(item, '**')}")
    if verdict.causes:
        lines += ["", "Likely cause:", "", *(f"- {cause}" for cause in verdict.causes)]
    rows = [
        [
            item.subject,
            item.metric,
            f"{item.before:.4g}",
            f"{item.now:.4g}",
            difference(item),
            f"{item.p:.2g}" if item.tested else "",
            "**moved**" if item.moved else "",
        ]
        for item in verdict.comparisons
    ]
    head = ["Subject", "Metric", "Baseline", "Now", "Difference", "p", ""]
    lines += ["", markdown_table(head, rows, text_columns=2).rstrip(), ""]
    lines.append(
        f"Alarm at p < {ALPHA:g} over all comparisons together (Holm). Reference network: "
        "McNemar's exact test of outcomes and Wilcoxon's signed-rank test of margins, on the same "
        "images; trained methods: t test of seeds on the same images. "
        f"Baseline: {len(baseline.scope.seeds)} seeds; {baseline.reason}."
    )
    return "\n".join(lines) + "\n"


def moved_text(item: Comparison, mark: str = "") -> str:
    """What moved, from where to where, and how sure that is; ``mark`` around its name."""
    name = f"{mark}{item.name}{mark}"
    return f"{name}: {item.before:.4g} to {item.now:.4g} ({item.text}; {_sure(item)})"


def difference(item: Comparison) -> str:
    """ "identical" only where the two numbers beside it are the same, too."""
    equal = f"{item.before:.4g}" == f"{item.now:.4g}"
    return "identical" if item.identical and equal else item.text


def headline(verdict: Verdict) -> str:
    """The verdict in a few words."""
    moved = len(verdict.moved)
    if moved:
        return f"{moved} figure{'' if moved == 1 else 's'} moved"
    if verdict.other_settings:
        return "no alarm, but the settings are not the baseline's, so the code was not checked"
    return "nothing moved"


def _sure(item: Comparison) -> str:
    return f"p = {item.p:.1g}" if item.p else "not a matter of chance"


def junit(verdict: Verdict, baseline: Baseline) -> str:
    """One test case per comparison, and one that fails if the settings are not the baseline's."""
    suite = ElementTree.Element(
        "testsuite",
        name=f"generalist-bench check {baseline.scope.suite}",
        tests=str(len(verdict.comparisons) + bool(verdict.other_settings)),
        failures=str(len(verdict.moved) + bool(verdict.other_settings)),
        errors="0",
        skipped="0",
    )
    for item in verdict.comparisons:
        case = ElementTree.SubElement(suite, "testcase", classname=item.subject, name=item.metric)
        if item.moved:
            message = f"{item.before:.4g} to {item.now:.4g} ({item.text}; {_sure(item)})"
            failure = ElementTree.SubElement(case, "failure", message=message, type=item.kind)
            failure.text = "\n".join(verdict.causes)
    if verdict.other_settings:
        case = ElementTree.SubElement(suite, "testcase", classname="suite", name="settings")
        ElementTree.SubElement(case, "failure", message=verdict.other_settings, type="settings")
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
