"""A folder of the user's that Python finds in the place of one of our packages."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("benchmark", "baselines", "generalist")


def refuse_shadows() -> None:
    """Raises ImportError: another package has the name of one that Generalist-Bench consists of."""
    ours = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        # of a package that has been imported already, what was imported counts
        spec = getattr(sys.modules.get(name), "__spec__", None) or find_spec(name)
        if spec is None or spec.submodule_search_locations is None:
            place = None if spec is None else spec.origin
        else:
            place = next(iter(spec.submodule_search_locations), None)
        if place is None or Path(place).resolve() != ours / name:
            raise ImportError(
                f"Python finds {place or 'nothing'} in the place of Generalist-Bench's package "
                f"{name!r}: rename it, or start Python in another folder (the command "
                "generalist-bench works there all the same)"
            )
