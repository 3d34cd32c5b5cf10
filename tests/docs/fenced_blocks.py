"""The fenced blocks of a page of the documentation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SKIPPED = "<!-- not run by the tests: "


@dataclass(frozen=True)
class Block:
    """A fenced block. ``title`` names the file that it is; ``run`` is False where a comment before
    it says why not."""

    language: str
    title: str | None
    text: str
    run: bool


def blocks(page: Path) -> list[Block]:
    found = re.findall(
        r"(<!--[^\n]*-->\n)?^```(\w+)(?: title=\"(.*?)\")?\n(.*?)^```",
        page.read_text(),
        re.DOTALL | re.MULTILINE,
    )
    return [
        Block(language, title or None, text, not comment.startswith(SKIPPED))
        for comment, language, title, text in found
    ]
