"""A sync that is killed with SIGKILL at a chosen operation of the store that it copies to. Run by the tests.

Arguments: the folder of the plan, the number of the operation.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from recoup.assembly.sync import sync
from recoup.storage.faults import FaultyStore
from tests.integration.planted import OpenSystem


def _die(_operation: str) -> Exception:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable: the process is dead")


def main() -> None:
    system = OpenSystem.from_file(Path(sys.argv[1]) / "recoup.yaml")
    assert isinstance(system, OpenSystem)
    system.stores = {}
    store = system.open(only="offsite").repositories[0].store
    system.stores = {"offsite": FaultyStore(store, fail_call=int(sys.argv[2]), error=_die)}
    sync(system)


if __name__ == "__main__":
    main()
