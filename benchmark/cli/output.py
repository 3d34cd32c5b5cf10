"""How commands print: JSON, and tables that fit a terminal or a pipe."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table with lines on a terminal; elsewhere tabs between columns, without the title."""
    console = Console()
    if not console.is_terminal:
        # Nothing is cut to a width that a file or a pipe does not have.
        print("\t".join(columns))
        for row in rows:
            print("\t".join(row))
        return
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    console.print(table)
