"""Names that are too long for their place, cut where they lose least."""

from __future__ import annotations

from collections.abc import Sequence

CUT = "…"


def shorten(text: str, width: int) -> str:
    """``text`` in at most ``width`` characters, cut in the middle: "generalist-d…s2: aa_linf".

    Names here begin with what is done and end with where (a seed, a metric), so both are kept.
    """
    return _cut(text, width, (width - len(CUT)) // 2)


def shorten_all(texts: Sequence[str], width: int) -> list[str]:
    """Each of ``texts`` in at most ``width`` characters, cut at a place that leaves all of them
    different; texts that no such cut tells apart stay whole."""
    room = width - len(CUT)
    # the middle first, then ever further from it
    for head in sorted(range(1, room), key=lambda head: abs(head - room // 2)):
        found = [_cut(text, width, head) for text in texts]
        if len(set(found)) == len(set(texts)):
            return found
    return list(texts)


def _cut(text: str, width: int, head: int) -> str:
    if len(text) <= width:
        return text
    head = max(0, head)
    tail = max(0, width - len(CUT) - head)
    return text[:head] + CUT + (text[-tail:] if tail else "")
