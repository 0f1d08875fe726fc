"""Production comes first: how a backup steps aside for whatever else the machine has to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SAY = """
import os
from recoup.kernel.process import give_way
give_way()
print(os.nice(0))
"""
LEAD = "import os; os.setsid()"


def share_of_this_session() -> str:
    """What the kernel says of the session that this process shares the processors with, sched(7).

    Empty where there is nothing to say: in a kernel without autogroups, and in a session that was begun before there
    were any, as that of the first process of some machines.
    """
    here = Path("/proc/self/autogroup")
    return here.read_text() if here.exists() else ""


def said_by_a_process(before: str = "") -> list[str]:
    """The niceness that a process has after it gave way, and the one of its session where the kernel has such."""
    ask = 'print(open("/proc/self/autogroup").read() if os.path.exists("/proc/self/autogroup") else "")'
    done = subprocess.run([sys.executable, "-c", before + SAY + ask], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_backup_in_a_session_of_its_own_steps_aside_for_all_other_sessions() -> None:
    niceness, *session = said_by_a_process(LEAD)
    assert int(niceness) >= 10
    assert session == [] or session[-1] == "10", "the kernel shares out between sessions before it looks at niceness"


def test_a_backup_typed_by_hand_leaves_the_session_of_the_terminal_as_it_is() -> None:
    before = share_of_this_session()
    niceness, *_ = said_by_a_process()
    assert int(niceness) >= 10
    assert share_of_this_session() == before
