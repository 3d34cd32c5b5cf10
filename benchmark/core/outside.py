"""A user's own classes, by file or module: ``my_file.py:MyMethod`` or ``my_module:MyMethod``.

In records, such a name is followed by the first digits of the file's SHA-256
(``my_file.py:MyMethod#1b4f0e9851``). So a record says which code was used, and a run with a changed
file has another configuration.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmark.core.errors import ConfigError
from benchmark.core.files import at_home

_DIGITS = 10


def is_outside(name: object) -> bool:
    """Whether ``name`` is of the form ``FILE:NAME`` or ``MODULE:NAME``."""
    return isinstance(name, str) and ":" in name


def label_of(name: str) -> str:
    """The name in tables: the part after the colon, without the hash."""
    return name.rpartition(":")[2].partition("#")[0] if is_outside(name) else name


def find(name: str) -> tuple[str, Any]:
    """The object that ``name`` refers to, and the name with the hash of its file.

    A file is looked for in the working directory. A module is looked for among installed ones
    first, then in the working directory. The code is run only if its hash is that in ``name``, if
    one is given there.

    Raises:
        ConfigError: no such file, module or object; code that fails when imported; a file whose
            hash differs from that in ``name``.
    """
    plain, _, stated = name.partition("#")
    place, _, attribute = plain.rpartition(":")
    is_file = place.endswith(".py")
    source = _file(place, name) if is_file else _file_of_module(place, name)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:_DIGITS]
    if stated and stated != digest:
        raise ConfigError(
            f"{plain} is not the code that the run was made with: the hash of its file is "
            f"{digest}, not {stated}; restore the file, or train again"
        )
    found: Any = _run(source, place) if is_file else import_module(place, name)
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise ConfigError(f"{place} has no {attribute!r}; check {plain!r}")
    if missing := getattr(found, "__abstractmethods__", None):
        raise ConfigError(
            f"{plain}: the class lacks {' and '.join(sorted(missing))}; define "
            f"{'it' if len(missing) == 1 else 'them'}, as docs/extending.md shows"
        )
    return f"{plain}#{digest}", found


def pinned_to_source(cls: type) -> str:
    """A name with a hash, for a class that is in no file, such as one defined in a notebook."""
    try:
        text = inspect.getsource(cls)
    except (OSError, TypeError):  # typed into an interpreter, so there is no source
        text = cls.__qualname__
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
    return f"{cls.__module__}:{cls.__qualname__}#{digest}"


def _file(place: str, name: str) -> Path:
    path = at_home(Path(place))
    if not path.is_file():
        raise ConfigError(
            f"{name}: there is no file {place}; a path is relative to the working directory"
        )
    return path


def _file_of_module(place: str, name: str) -> Path:
    _look_here()
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, ValueError):  # the package that should contain it cannot be imported
        spec = None
    if spec is None:
        raise ConfigError(f"cannot import {place!r} of {name!r}: there is no such module")
    if spec.origin is None or not Path(spec.origin).is_file():
        raise ConfigError(f"{name}: {place} has no file whose hash could be recorded")
    return Path(spec.origin)


def _run(path: Path, place: str) -> ModuleType:
    """The module in the file."""
    # Modules are kept by content, so that a file that was edited in the meantime is read again.
    digest = hashlib.sha256(str(path.resolve()).encode() + path.read_bytes()).hexdigest()
    key = f"{path.stem}_{digest[:_DIGITS]}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[key] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # foreign code may raise anything
            del sys.modules[key]
            raise ConfigError(f"{place} cannot be run: {type(error).__name__}: {error}") from error
    return sys.modules[key]


def _look_here() -> None:
    """Let Python find modules in the working directory, but after all others, so that a file beside
    the user's data cannot hide an installed package."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def import_module(place: str, name: str) -> ModuleType:
    """The module ``place`` of ``name``; it may be in the working directory.

    Raises:
        ConfigError: it cannot be imported.
    """
    _look_here()
    try:
        return importlib.import_module(place)
    except Exception as error:  # foreign code may raise anything
        raise ConfigError(
            f"cannot import {place!r} of {name!r}: {type(error).__name__}: {error}"
        ) from error
