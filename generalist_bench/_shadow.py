"""Detects a user's folder that Python would import instead of one of our packages."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("benchmark", "baselines", "generalist")


def refuse_shadows() -> None:
    """Raise ImportError if Python finds another package under the name of one of ours."""
    ours = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        # if the package is imported already, that is the one in use
        spec = getattr(sys.modules.get(name), "__spec__", None) or find_spec(name)
        if spec is None or spec.submodule_search_locations is None:
            place = None if spec is None else spec.origin
        else:
            place = next(iter(spec.submodule_search_locations), None)
        if place is None or Path(place).resolve() != ours / name:
            raise ImportError(
                f"Python finds {place or 'nothing'} instead of Generalist-Bench's package "
                f"{name!r}: rename it, or start Python in another folder (the command "
                "generalist-bench works in this folder nevertheless)"
            )
