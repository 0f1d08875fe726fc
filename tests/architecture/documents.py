"""The pages of this repository, taken apart: links, code, commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tests.architecture.sources import ROOT, name_of, tracked

_FENCE = re.compile(r"^( *)```([\w-]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page: its text, its text without blocks of code, and the blocks with their languages."""

    path: Path
    text: str
    prose: str
    blocks: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """The page as people call it."""
        return name_of(self.path)

    def spans(self) -> list[str]:
        """Everything between single backticks in the prose."""
        return _INLINE.findall(self.prose)

    def anchors(self) -> set[str]:
        """What ``#…`` of a link may say: the headings, as GitHub makes anchors of them."""
        headings = re.findall(r"^#+ +(.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@lru_cache
def pages() -> tuple[Page, ...]:
    """Every page, the made ones included."""
    return tuple(read_page(path) for path in sorted(tracked()) if path.suffix == ".md" and _ours(path))


def _ours(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return len(parts) == 1 or parts[0] in {"docs", "deploy"}


def read_page(path: Path) -> Page:
    """One page."""
    text = path.read_text(encoding="utf-8")
    blocks = tuple((language, body) for _, language, body in _FENCE.findall(text))
    return Page(path=path, text=text, prose=_FENCE.sub("", text), blocks=blocks)


def command_lines(page: Page) -> Iterator[list[str]]:
    """The words after ``recoup`` of every call shown in a block: scripts as they are, in ``text`` after a ``$``."""
    for language, body in page.blocks:
        if language not in {"sh", "text", "bash", ""}:
            continue
        joined = re.sub(r"\\\n\s*", " ", body)
        for line in joined.splitlines():
            stripped = line.strip()
            crontab = re.match(r"[\d*]+ [\d*]+ \S+ \S+ \S+ ", stripped)
            if language != "sh" and not stripped.startswith("$ ") and not crontab:
                continue
            yield from _calls(stripped.removeprefix("$ "))


def _calls(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    lexer.commenters = "#" if re.search(r"(^|\s)#", line) else ""
    try:
        words = [*lexer, ";"]
    except ValueError:  # a quotation that goes on in the next line: no call of ours does
        return
    segment: list[str] = []
    for word in words:
        if not re.fullmatch(r"[|&;<>]+", word):
            segment.append(word)
            continue
        if segment[:1] == ["recoup"]:
            yield segment[1:]
        segment = []
