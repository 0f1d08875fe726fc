"""Run by tests as a program: restore a dump, and die by SIGKILL at the n-th act that changes the server.

Arguments: JSON with url, folder, dump, facts, fingerprint, database, run_id, kill_at (0: never), after (die after the
act instead of before it). Prints what ``restore_dump`` returned.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

from recoup.engines.engine import CopyFacts
from recoup.engines.postgres.access import DirectAccess
from recoup.engines.postgres.replace_database import Replacement
from recoup.engines.postgres.restore_database import DumpRestore, restore_dump
from recoup.engines.postgres.session import DirectSession
from recoup.kernel.secret import Secret
from tests.integration.held_copy import HeldCopy

_ACT = re.compile(r"DATABASE|BEGIN|COMMIT|ANALYZE")


def main() -> None:
    work = json.loads(sys.argv[1])
    acts = 0
    original = DirectSession.execute

    def execute(self: DirectSession, sql: str) -> None:
        nonlocal acts
        counts = _ACT.match(sql) is not None or " DATABASE " in sql
        acts += counts
        if counts and acts == work["kill_at"]:
            if work["after"]:
                original(self, sql)
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, sql)

    DirectSession.execute = execute  # type: ignore[method-assign]
    copy = HeldCopy()
    copy.data = {name: Path(path).read_bytes() for name, path in work["streams"].items()}
    copy.complete(CopyFacts(facts=work["facts"], fingerprint=work["fingerprint"]))
    access = DirectAccess(Secret(work["url"]), folders=[Path(work["folder"])])
    replacement = Replacement(database=work["database"], run_id=work["run_id"], force=True)
    done = restore_dump(access, copy, DumpRestore(source=work["source"], replacement=replacement))
    answer: dict[str, Any] = {"kept": done.kept, "notes": done.notes, "acts": acts}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
