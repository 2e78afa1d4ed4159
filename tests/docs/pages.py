"""The pages of the documentation as their tests read them: fenced blocks, each with its language and its title."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
_BLOCK = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block."""

    language: str
    title: str
    """The name of the file that it is; empty when it is none."""
    text: str


def blocks(page: Path, language: str = "") -> list[Block]:
    """The fenced blocks of a page in order, of one language when named."""
    found = [Block(m["language"], m["title"] or "", m["text"]) for m in _BLOCK.finditer(page.read_text())]
    return [block for block in found if language in ("", block.language)]


def commands(page: Path) -> list[str]:
    """The lines of the page's console blocks."""
    return [line for block in blocks(page, "console") for line in block.text.splitlines()]
