"""What is done about a test that fails: see ``tests/run.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.run import MOST, Failures, may_run_again

_ROOT = Path(__file__).parents[2]
_FLAKY = """
from pathlib import Path
def test_fails_the_first_time():
    before = Path("been")
    there = before.exists()
    before.touch()
    assert there
"""
_BROKEN = """
def test_fails_always():
    assert False
"""
_GOOD = """
def test_holds():
    assert True
"""


def _run(folder: Path, files: dict[str, str], **environment: str) -> subprocess.CompletedProcess[str]:
    for name, text in files.items():
        (folder / name).write_text(text)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "RECOUP_ONCE"))}
    return subprocess.run(
        [sys.executable, "-m", "tests.run", "-p", "no:cacheprovider", "-q", "-n", "2"],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(_ROOT), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_what_fails_once_and_holds_alone_is_told_and_does_not_fail_the_run(tmp_path: Path) -> None:
    done = _run(tmp_path, {"test_flaky.py": _FLAKY, "test_good.py": _GOOD})
    assert done.returncode == 0, done.stdout
    assert "FLAKY, passed alone: test_flaky.py::test_fails_the_first_time" in done.stdout
    assert "assert there" in done.stdout, "the first traceback is shown"


def test_what_fails_again_fails_the_run_also_beside_what_does_not(tmp_path: Path) -> None:
    done = _run(tmp_path, {"test_flaky.py": _FLAKY, "test_broken.py": _BROKEN})
    assert done.returncode == 1, done.stdout
    assert "FAILED again: test_broken.py::test_fails_always" in done.stdout


def test_nothing_is_tried_again_where_somebody_looks_for_rare_failures(tmp_path: Path) -> None:
    done = _run(tmp_path, {"test_flaky.py": _FLAKY}, RECOUP_ONCE="1")
    assert done.returncode == 1, done.stdout
    assert "alone" not in done.stdout


@pytest.mark.parametrize(
    ("ended", "failed", "elsewhere"),
    [(0, 0, False), (1, 0, False), (1, MOST + 1, False), (1, 1, True), (2, 1, False), (3, 1, False), (5, 0, False)],
    ids=["green", "nothing-named", "many", "file-unreadable", "interrupted", "pytest-broke", "no-tests"],
)
def test_only_a_few_failures_of_tests_are_tried_again(ended: int, failed: int, elsewhere: bool) -> None:
    failures = Failures()
    failures.tests = dict.fromkeys(map(str, range(failed)))
    failures.elsewhere = elsewhere
    assert not may_run_again(ended, failures, once=False)
