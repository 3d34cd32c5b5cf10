"""The class of all registries, from which things are chosen by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from benchmark.core.errors import ConfigError
from benchmark.core.outside import find, is_outside

T = TypeVar("T")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The last phrase of an error message: names similar to ``word``, or else all known names."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(repr(name) for name in near) + "?"
    return "known: " + ", ".join(names) if names else "none is registered."


class Registry(Generic[T]):
    """Names to objects, filled by ``register`` and by the entry points of one group.

    Args:
        kind: what is registered, in the singular, for error messages ("method").
        group: entry-point group that is searched at first use, so that an installed package can add
            a name without a change to this repository. None if there is no such group.
        of: the class of which an entry point's object must be; None if that is not checked.
        outside: a name may also be ``FILE:NAME`` or ``MODULE:NAME``, see ``core.outside``.
    """

    def __init__(
        self,
        kind: str,
        group: str | None = None,
        of: type[T] | None = None,
        *,
        outside: bool = False,
    ) -> None:
        self.kind = kind
        self._outside = outside
        self._of = of
        self._group = group
        self._items: dict[str, T | EntryPoint] = {}
        self._scanned = group is None

    def register(self, name: str, item: T, *, replace: bool = False) -> T:
        """Add ``item``. Raises ConfigError if another object has the name, unless ``replace``."""
        if not replace and name in self._items and self._items[name] is not item:
            raise ConfigError(f"{self.kind} {name!r} is registered twice")
        self._items[name] = item
        return item

    @contextmanager
    def lent(self, name: str, item: T) -> Iterator[str]:
        """Inside the block, ``item`` is registered under ``name``. It is for objects that a caller
        gives in Python, so that the configurations of this call can refer to them by name."""
        known = self._items.get(name)
        self._items[name] = item
        try:
            yield name
        finally:
            del self._items[name]
            if known is not None:
                self._items[name] = known

    def _scan(self) -> None:
        if self._scanned:
            return
        for point in entry_points(group=self._group or ""):
            known = self._items.get(point.name)
            if isinstance(known, EntryPoint) and known.value != point.value:
                raise ConfigError(
                    f"{self.kind} {point.name!r} is offered by {known.value} and by {point.value}; "
                    "uninstall one of them"
                )
            self._items.setdefault(point.name, point)
        self._scanned = True

    def names(self) -> list[str]:
        """All registered names, sorted (a user's own files are not among them). Nothing is
        imported."""
        self._scan()
        return sorted(name for name in self._items if not is_outside(name))

    def __contains__(self, name: str) -> bool:
        self._scan()
        return name in self._items or (self._outside and is_outside(name))

    def recorded(self, name: str) -> str:
        """The name as records write it: for an object from a user's own file, with its hash.

        Raises:
            ConfigError: see ``get``.
        """
        if name in self._items or not (self._outside and is_outside(name)):
            return name
        return find(name)[0]

    def get(self, name: str) -> T:
        """The object of that name, imported now if it comes from an entry point.

        Raises:
            ConfigError: unknown name (the message suggests similar ones), or an entry point that
                cannot be imported or leads to an object of another kind.
        """
        self._scan()
        if self._outside and is_outside(name) and name not in self._items:
            return cast(T, find(name)[1])
        if not isinstance(name, str) or name not in self._items:  # a file may give any value
            if str(name).startswith("memory-"):
                raise ConfigError(
                    f"the {self.kind} {name!r} was given in Python and is in no file; give it "
                    "again to the same function of generalist_bench"
                )
            raise ConfigError(
                f"unknown {self.kind} {name!r}; {self.advice(str(name), self._items)}"
            )
        item = self._items[name]
        if isinstance(item, EntryPoint):
            try:
                loaded = cast(T, item.load())
            except (ImportError, AttributeError) as error:
                raise ConfigError(
                    f"{self.kind} {name!r} cannot be imported from {item.value}: {error}"
                ) from error
            if self._of is not None and not isinstance(loaded, self._of):
                raise ConfigError(
                    f"{self.kind} {name!r}: {item.value} is a {type(loaded).__name__}, not a "
                    f"{self._of.__name__}; correct the entry point"
                )
            self._items[name] = loaded
            return loaded
        return item

    def advice(self, name: str, known: Iterable[str]) -> str:
        """The last phrase of an error message about a name that is none of the ``known`` ones."""
        if self._outside and name.endswith(".py"):
            return f"to use a class of your own file, write {name}:CLASS"
        return did_you_mean(name, known)

    def items(self) -> Iterable[tuple[str, Any]]:
        """(name, object) in order of name."""
        return [(name, self.get(name)) for name in self.names()]

    def where(self, holds: Callable[[T], bool]) -> list[str]:
        """The names of objects for which ``holds`` is true, sorted, for error messages. Entry
        points that cannot be imported are ignored."""
        found = []
        for name in self.names():
            with suppress(ConfigError):
                if holds(self.get(name)):
                    found.append(name)
        return found
