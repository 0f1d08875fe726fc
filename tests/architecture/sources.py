"""The files of this repository, and the syntax trees of the program, for tests about all of them."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from recoup.kernel.process import Command, run

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "src" / "recoup"


@lru_cache
def tracked() -> tuple[Path, ...]:
    """Every file that belongs to the repository; from the folders themselves when this is no checkout."""
    names = _listed_by_git()
    if names is not None:
        return tuple(path for name in names if (path := ROOT / name).is_file())
    folders = (ROOT / name for name in ("src", "tests", "bench", "scripts", "docs", "deploy"))
    inside = (path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return tuple(path for path in (*ROOT.glob("*"), *inside) if path.is_file())


def _listed_by_git() -> list[str] | None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        return None
    # The checkout may belong to somebody else than the one who runs the tests.
    argv = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z"]
    listed = run(Command(argv=argv, timeout_seconds=60)).stdout.decode()
    return [name for name in listed.split("\0") if name]


def text_of(path: Path) -> str | None:
    """The content of a text file, or None for any other."""
    data = path.read_bytes()
    if b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def name_of(path: Path) -> str:
    """A file as people call it: ``kernel/clock.py``, ``tests/real.py``."""
    return str(path.relative_to(PROGRAM if path.is_relative_to(PROGRAM) else ROOT))


@lru_cache
def trees() -> tuple[tuple[str, ast.Module], ...]:
    """The name and the syntax tree of every module of the program."""
    return tuple((name_of(path), ast.parse(path.read_text(), str(path))) for path in sorted(PROGRAM.rglob("*.py")))


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Every node of these kinds in the program, with the name of its module."""
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, kinds):
                yield name, node


def place(name: str, node: ast.AST) -> str:
    """Where a node is: ``kernel/clock.py:12``."""
    return f"{name}:{getattr(node, 'lineno', 0)}"
