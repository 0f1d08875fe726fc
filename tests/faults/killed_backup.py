"""A backup that is killed with SIGKILL at a chosen storage operation. Run as a program by the tests.

Arguments: the repository's folder, the state folder, the number of the operation (0: none).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from recoup.repository.repository import Repository
from recoup.storage.faults import FaultyStore
from recoup.storage.local import LocalStore
from tests.faults.artefacts import SampleSource, repository, sample_tar, take


def _die(_operation: str) -> Exception:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable: the process is dead")


def main() -> None:
    folder, state, number = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    inner = LocalStore(folder, create=True)
    whole = repository("local", inner)
    deadly = FaultyStore(inner, fail_call=number or None, error=_die)
    target = Repository(name="local", identity=whole.identity, created=whole.created, store=deadly, key=whole.key)
    take(SampleSource(tar=sample_tar()), [target], state)


if __name__ == "__main__":
    main()
