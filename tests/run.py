"""Run the tests side by side. What failed is run once more, alone on the machine, and both results are told.

    python -m tests.run [options of pytest]

A test here waits for real servers beside two others on two cores, and a slow moment may pass a limit that is a safety
net. So a failure counts when it comes again with nothing beside it; one that does not is called flaky, with its first
traceback, and is somebody's next work (docs/decisions/0025). More failures than ``MOST`` are no chance and are
not tried again, nor is anything with ``RECOUP_ONCE=1``, as in ``make soak``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

#: So many failures may be a slow moment's. A broken program fails more of some 4,800 tests.
MOST = 3
#: Runs a test with nothing beside it.
ALONE = (sys.executable, "-m", "pytest", "-q", "-n", "0")


class Failures:
    """A plugin that notes which tests failed, in any of their phases and in any worker."""

    def __init__(self) -> None:
        self.tests: dict[str, None] = {}  #: in the order in which they failed, each once
        self.elsewhere = False  #: something failed that is not a test: a file that cannot be read, for one

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failed set-up, call or tear-down."""
        if report.failed:
            self.tests[report.nodeid] = None

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note what is no test."""
        self.elsewhere |= report.failed


def may_run_again(ended: int, failures: Failures, *, once: bool) -> bool:
    """Whether the failures of a run that ended so are to be tried again."""
    if once or ended != pytest.ExitCode.TESTS_FAILED or failures.elsewhere:
        return False
    return 0 < len(failures.tests) <= MOST


def run(options: Sequence[str]) -> int:
    """Run pytest with these options, and what failed once more. Return the exit code."""
    failures = Failures()
    ended = int(pytest.main(list(options), plugins=[failures]))
    if not may_run_again(ended, failures, once=bool(os.environ.get("RECOUP_ONCE"))):
        return ended
    print(f"\n{len(failures.tests)} failed beside others. Once more, alone:", flush=True)
    ended = 0
    for test in failures.tests:  # each in a process of its own: no server is left from the one before
        # Without options from outside: a report that they ask for is that of the first run.
        bare = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
        again = subprocess.run([*ALONE, test], check=False, env=bare).returncode
        print(f"{'FAILED again' if again else 'FLAKY, passed alone'}: {test}", flush=True)
        ended = ended or again
    return ended


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
