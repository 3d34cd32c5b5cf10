"""What fuzzing draws from: values of any kind, valid documents with one thing wrong, damaged files.

``GENERALIST_BENCH_FUZZ=50`` multiplies the number of examples by 50.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from benchmark.core.errors import BenchmarkError

SCALE = int(os.environ.get("GENERALIST_BENCH_FUZZ", "1"))


def examples(number: int, shrink: bool = True) -> Callable[[Any], Any]:
    """So many in a test run; the deadline is pytest's.

    Args:
        shrink: look for the smallest case that fails; off where each takes a second.
    """
    phases = [Phase.explicit, Phase.generate, *([Phase.shrink] if shrink else [])]
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(
        max_examples=number * SCALE,
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=quiet,
    )


def attempt(call: Callable[[], Any], kind: type[BenchmarkError] = BenchmarkError) -> Any:
    """What ``call`` gives, or the words of its error; any other error is a failure."""
    try:
        return call()
    except kind as error:
        words = str(error)
    assert words.strip()
    return words


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.sampled_from([-1, 0, 2**31, 2**63, 2**64, 10**30, -(10**30)]),
    st.floats(),
    st.sampled_from([0.0, -0.0, 1e-320, 1e308, float("nan"), float("inf"), float("-inf")]),
    st.sampled_from(
        [
            "",
            "linf",
            "l2",
            "8/255",
            "1/0",
            "pgd-at",
            "1e400",
            "1e999999999",
            "1e-999999999",
            "٣",
            "a/b",
            "../x",
            ".",
        ]
    ),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=5), SCALARS), inner, max_size=3),
    ),
    max_leaves=6,
)
# What a JSON file can hold.
JSON_VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def _places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a document."""
    found = [here]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += _places(inner, (*here, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += _places(inner, (*here, index))
    return found


@st.composite
def with_faults(draw: Any, document: Any, values: Any = VALUES, most: int = 2) -> Any:
    """``document`` with up to ``most`` values replaced, removed, or added."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        place = draw(st.sampled_from(_places(changed)))
        if not place:
            if draw(st.integers(0, 9)):
                continue
            return draw(values)
        *parents, last = place
        here = changed
        for key in parents:
            here = here[key]
        kind = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if kind == "replace":
            here[last] = draw(values)
        elif kind == "remove":
            del here[last]
        elif isinstance(here, dict):
            here[draw(st.text(max_size=6))] = draw(values)
        else:
            here.append(draw(values))
    return changed


@st.composite
def damaged(draw: Any, content: bytes) -> bytes:
    """A file's ``content`` cut, with bits flipped, with bytes in the middle, or replaced."""
    kind = draw(st.sampled_from(["flip", "flip", "cut", "insert", "replace", "zero"]))
    if kind == "replace" or not content:
        return bytes(draw(st.binary(max_size=200)))
    where = draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        return content[:where]
    if kind == "insert":
        return content[:where] + draw(st.binary(min_size=1, max_size=8)) + content[where:]
    changed = bytearray(content)
    if kind == "zero":
        stop = min(len(content), where + draw(st.integers(1, 64)))
        changed[where:stop] = bytes(stop - where)
    else:
        for _ in range(draw(st.integers(1, 3))):
            changed[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(changed)
