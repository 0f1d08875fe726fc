"""Opens a sandbox with a real PostgreSQL in it, says how far it is, and waits there to be killed.

Call it as ``python -m tests.integration.held_sandbox ROOT MAJOR STOP``. Each line it prints is a moment, with the
sandbox's id once there is one; at ``STOP`` it waits.
"""

from __future__ import annotations

import sys
from pathlib import Path

from recoup.demo.host import reachable
from recoup.demo.programs import find_postgres
from recoup.engines.postgres.sandbox_programs import local_installation
from recoup.engines.postgres.sandbox_restore import new_cluster
from recoup.engines.postgres.sandbox_server import start_sandbox_server
from recoup.engines.sandbox import open_sandbox
from recoup.kernel.process import open_child


def main() -> None:
    root, major, stop = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

    def at(moment: str, identifier: str = "-") -> None:
        sys.stdout.write(f"{moment} {identifier}\n")
        sys.stdout.flush()
        if moment == stop:
            sys.stdin.read()

    def removing(identifier: str) -> None:
        at("removing", identifier)

    with open_sandbox(root, "a test", elsewhere=removing) as sandbox:
        at("opened", sandbox.id)
        if stop == "removing":
            return
        programs = find_postgres(major)
        folder = reachable(programs.path, programs.package, (65534, 65534))
        data = new_cluster(sandbox, local_installation(sandbox, major, folders=[folder]))
        with start_sandbox_server(sandbox, data, major=major, programs=[folder]) as server:
            at("started", sandbox.id)
            busy = "SELECT count(*) FROM generate_series(1, 1000000000000) i WHERE i % 7 = 9"
            argv = [server.program("psql"), "--no-psqlrc", "--command", busy]
            with open_child(server.command(argv, database="postgres")):
                at("busy", sandbox.id)


if __name__ == "__main__":
    main()
