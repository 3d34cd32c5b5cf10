"""The hash that names a run: independent of the order of keys, sensitive to every value."""

from __future__ import annotations

import hashlib
import math

import pytest

from benchmark.core.config import Config, canonical_json, config_hash, parse
from benchmark.core.errors import ConfigError
from benchmark.core.threat import ThreatModel


class Inner(Config):
    rate: float = 0.1


class Outer(Config):
    inner: Inner = Inner()
    steps: int = 3


def test_order_of_keys_is_irrelevant() -> None:
    """Otherwise an edit of a YAML file's layout would train everything again."""
    one = {"a": 1, "b": {"c": [1, 2], "d": None}}
    other = {"b": {"d": None, "c": [1, 2]}, "a": 1}
    assert canonical_json(one) == canonical_json(other) == '{"a":1,"b":{"c":[1,2],"d":null}}'
    assert config_hash(one) == hashlib.sha256(canonical_json(one).encode()).hexdigest()[:10]
    assert config_hash(one) == config_hash(other)


@pytest.mark.parametrize(
    "other", [{"a": 2}, {"a": "1"}, {"a": 1.5}, {"b": 1}, {"a": 1, "b": 1}, {"a": [1]}]
)
def test_values_and_keys_matter(other: dict) -> None:
    """Otherwise a changed run would reuse stale results."""
    assert config_hash({"a": 1}) != config_hash(other)


def test_models_hash_as_their_json() -> None:
    """A configuration and what its record holds have one name; defaults are spelled out."""
    config = Outer()
    assert config_hash(config) == config_hash({"steps": 3, "inner": {"rate": 0.1}})
    assert config_hash(Outer(steps=4)) != config_hash(config)
    one = ThreatModel.model_validate({"eps": "8/255"})
    assert config_hash(one) == config_hash(ThreatModel.model_validate_json(one.model_dump_json()))
    assert config_hash(one) != config_hash(ThreatModel.model_validate({"eps": "4/255"}))


def test_nan_has_no_canonical_form() -> None:
    """NaN is not JSON, and is not equal to itself."""
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": math.nan})


def test_errors_name_every_wrong_key() -> None:
    """One message for all mistakes, with near misses at the right depth."""
    with pytest.raises(ConfigError) as caught:
        parse(Outer, {"stpes": 1, "inner": {"rat": 2}}, where="file.yaml")
    message = str(caught.value)
    assert message.startswith("file.yaml has 2 errors:")
    assert "unknown key 'stpes'; did you mean 'steps'?" in message
    assert "unknown key 'inner.rat'; did you mean 'rate'?" in message
