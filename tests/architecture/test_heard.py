"""Tests that are run in the background of a script still interrupt what they start."""

from __future__ import annotations

import signal
import subprocess
import sys

_LATER = """
import os, signal, subprocess, sys
from tests.heard import hear_in_children
hear_in_children()
for number in (signal.SIGINT, signal.SIGHUP):
    os.kill(os.getpid(), number)
    print(subprocess.run([sys.executable, "-c", sys.argv[1], str(int(number))]).returncode == -number)
"""
_STARTED = """
import os, signal, sys
number = signal.Signals(int(sys.argv[1]))
if signal.getsignal(number) is not signal.SIG_IGN:
    signal.signal(number, signal.SIG_DFL)  # Python's own for Ctrl-C prints
os.kill(os.getpid(), number)
"""


def _ignore() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def test_what_a_test_starts_hears_the_signals_that_its_caller_ignores_and_the_tests_do_not() -> None:
    said = subprocess.run(
        [sys.executable, "-c", _LATER, _STARTED], preexec_fn=_ignore, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["True", "True"]
