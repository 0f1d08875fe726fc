"""Run by tests as a program: bring a copy to life in a sandbox, say so, and wait to be killed.

Arguments: the sandboxes' folder, the RDB, the server program, its version.
"""

from __future__ import annotations

import sys
from pathlib import Path

from recoup.engines.engine import CopyFacts
from recoup.engines.redis.sandbox_server import local_launcher
from recoup.kernel import clock
from tests.integration.live_redis import live
from tests.integration.redis_copies import MemoryCopy


def main() -> None:
    root, rdb, program, version = sys.argv[1:]
    copy = MemoryCopy(Path(rdb).read_bytes(), CopyFacts(facts={"redis_version": version}))
    with live(copy, local_launcher(program, version), Path(root)) as opened:
        opened.boots()
        sys.stdout.write("alive\n")
        sys.stdout.flush()
        clock.pause(300)


if __name__ == "__main__":
    main()
