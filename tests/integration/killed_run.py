"""A prune or a sync that is killed with SIGKILL at a chosen operation of one store. Run as a program by the tests.

Arguments: ``prune`` or ``sync``, the folder of the plan, the repository, the number of the operation.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from recoup.assembly.protect.prune import prune
from recoup.assembly.protect.sync import sync
from recoup.storage.faults import FaultyStore
from tests.integration.planted import OpenSystem


def _die(_operation: str) -> Exception:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable: the process is dead")


def main(what: str, folder: str, repository: str, number: str) -> None:
    system = OpenSystem.from_file(Path(folder) / "recoup.yaml")
    assert isinstance(system, OpenSystem)
    system.stores = {}
    (found,) = system.open(only=repository).repositories
    system.stores = {repository: FaultyStore(found.store, fail_call=int(number), error=_die)}
    {"prune": prune, "sync": sync}[what](system)


if __name__ == "__main__":
    main(*sys.argv[1:])
