"""The page of failures promises that each row of its matrix runs on every version of PostgreSQL. It does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.architecture.sources import ROOT

PAGE = ROOT / "docs" / "failure-catalogue.md"
MAJORS = ("postgres15", "postgres16", "postgres17", "postgres18")


def test_each_row_of_the_matrix_runs_on_every_version() -> None:
    matrix = PAGE.read_text().partition("## On every version")[2].partition("\n## ")[0]
    rows = [line for line in matrix.splitlines() if line.startswith("| ") and "`test_" in line]
    named = [re.findall(r"`(test_\w+)`", row) for row in rows]
    assert len(rows) >= 15, "nothing was seen"
    assert all(len(tests) == 1 for tests in named)
    tests = {test for (test,) in named}
    files = sorted(str(path) for path in (ROOT / "tests").rglob("test_*.py") if _defines(path, tests))
    argv = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    for test in sorted(tests):
        cases = re.findall(rf"::{test}\[(.*)\]$", done.stdout, re.MULTILINE)
        assert [major for major in MAJORS if not any(major in case for case in cases)] == [], test


def _defines(path: Path, tests: set[str]) -> bool:
    text = path.read_text()
    return any(f"def {test}(" in text for test in tests)
