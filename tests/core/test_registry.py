"""The registry: near misses, collisions of plugins, and plugins that cannot be imported."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

import benchmark.core.registry as registry_module
from benchmark.core.errors import ConfigError
from benchmark.core.objective import METHODS
from benchmark.core.registry import Registry

GROUP = "some.group"


def offered(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> Registry[object]:
    """A registry whose entry points are (name, value) pairs."""
    found = [EntryPoint(name, value, GROUP) for name, value in points]
    monkeypatch.setattr(registry_module, "entry_points", lambda group: found)
    return Registry("method", GROUP)


def test_near_misses() -> None:
    """The sentence of the design: unknown method 'trade'; did you mean 'trades'?"""
    with pytest.raises(ConfigError, match="unknown method 'trade'; did you mean 'trades'?"):
        METHODS.get("trade")
    closed: Registry[int] = Registry("colour")
    with pytest.raises(ConfigError, match="unknown colour 'red'; none is registered"):
        closed.get("red")
    closed.register("blue", 1)
    with pytest.raises(ConfigError, match="unknown colour 'xyz'; known: blue"):
        closed.get("xyz")


def test_one_name_for_one_object() -> None:
    """Registering again is harmless with the same object and an error with another."""
    closed: Registry[object] = Registry("colour")
    item = object()
    assert closed.register("blue", item) is item
    closed.register("blue", item)
    with pytest.raises(ConfigError, match="'blue' is registered twice"):
        closed.register("blue", object())


def test_plugins_are_imported_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing names must not import a broken plugin; getting it says what is wrong."""
    registry = offered(monkeypatch, ("good", "json:dumps"), ("lost", "no_such_module:x"),
                       ("bare", "json:no_such_name"))  # fmt: skip
    import json

    assert registry.names() == ["bare", "good", "lost"]
    assert "lost" in registry
    assert registry.get("good") is json.dumps
    assert registry.get("good") is json.dumps
    for name, cause in (("lost", "no_such_module"), ("bare", "no_such_name")):
        with pytest.raises(ConfigError, match=f"'{name}' cannot be imported from .*{cause}"):
            registry.get(name)


def test_an_entry_point_to_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network's class, say, where its architecture belongs: one sentence, and no crash later."""
    offered(monkeypatch, ("net", "json:JSONDecoder"))
    registry: Registry[str] = Registry("model", GROUP, str)
    with pytest.raises(ConfigError, match="model 'net': json:JSONDecoder is a type, not a str"):
        registry.get("net")


def test_two_packages_with_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collision is an error every time: not an arbitrary winner at the second look."""
    registry = offered(monkeypatch, ("mine", "json:dumps"), ("mine", "json:loads"))
    for _ in range(2):
        with pytest.raises(ConfigError, match="offered by json:dumps and by json:loads"):
            registry.names()


def test_one_package_seen_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same entry point found twice on the path is no collision."""
    registry = offered(monkeypatch, ("mine", "json:dumps"), ("mine", "json:dumps"))
    assert registry.names() == ["mine"]


def test_own_registration_wins_over_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a script registers itself is what it gets."""
    registry = offered(monkeypatch, ("mine", "json:dumps"))
    item = registry.register("mine", object())
    assert registry.get("mine") is item


def test_what_cannot_be_imported_is_no_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken plugin must not turn an error message about something else into its own."""
    registry = offered(monkeypatch, ("good", "json:dumps"), ("lost", "no_such_module:x"))
    assert registry.where(lambda item: True) == ["good"]
    assert registry.where(lambda item: False) == []


def test_configurations_load_no_slow_library() -> None:
    """A line of the command line costs a second for each of these: they are imported where images
    are read or a network is made."""
    script = """if True:
        import sys
        from benchmark.core.config import parse
        from benchmark.data.source import DATASETS, DatasetConfig
        from benchmark.models.architecture import MODELS
        from benchmark.models.config import ModelConfig
        for name, source in DATASETS.items():
            parse(DatasetConfig, {"name": name, "path": "x" if source.takes_path else None})
        for name in MODELS.names():
            parse(ModelConfig, {"name": name})
        print(*{"torchvision", "sklearn", "pyarrow", "pandas", "scipy"} & sys.modules.keys())
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
