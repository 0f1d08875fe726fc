"""Production comes first: how a backup steps aside for whatever else the machine has to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SAY = """
import os
from pathlib import Path
from recoup.kernel.process import give_way
give_way()
autogroup = Path("/proc/self/autogroup")
print(os.nice(0), autogroup.read_text().split()[-1] if autogroup.exists() else "none")
"""


def niceness_of_this_session() -> str:
    here = Path("/proc/self/autogroup")
    return here.read_text() if here.exists() else "the kernel has no autogroups"


def said_by_a_process(*, own_session: bool) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SAY], capture_output=True, text=True, check=True, start_new_session=own_session
    )
    return done.stdout.split()


def test_a_backup_in_a_session_of_its_own_steps_aside_for_all_other_sessions() -> None:
    niceness, session = said_by_a_process(own_session=True)
    assert int(niceness) >= 10
    assert session in ("10", "none"), "the kernel shares out between sessions before it looks at niceness"


def test_a_backup_typed_by_hand_leaves_the_session_of_the_terminal_as_it_is() -> None:
    before = niceness_of_this_session()
    niceness, _ = said_by_a_process(own_session=False)
    assert int(niceness) >= 10
    assert niceness_of_this_session() == before
