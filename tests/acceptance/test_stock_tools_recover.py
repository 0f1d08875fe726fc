"""A server that is gone comes back to its last seconds with stock tools: base backup, WAL, and the piece at the end."""

from __future__ import annotations

import subprocess
from pathlib import Path

from recoup.assembly.protect.copies import Options, Task, protect
from recoup.demo.host import wait_until
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer
from tests.integration.wal_place import wal_place
from tests.real import require, require_found


def test_a_lost_server_comes_back_with_its_last_committed_row_by_stock_tools(server_folder: Path) -> None:
    for program in ("openssl", "zstd", "tar"):
        require(program)
    programs = require_found(lambda: find_postgres(17))
    with PostgresServer(programs) as server, wal_place(server) as place:
        place.start()
        place.wait_safe(place.commit("before the backup"))
        taken = protect(place.system, Task(service="pg", kind="base"), Options(), lambda _progress: None)
        assert taken.taken is not None
        artefact = taken.taken.outcome.manifest.id
        place.wait_safe(place.fill_segments(2))
        place.wait_safe(place.commit("the last row"))
        server.kill()
        place.stop()
        repository = place.system.folder / "backups"

        def script(*arguments: str) -> None:
            key_file = str(place.system.folder / "recoup.key")
            subprocess.run(
                ["sh", str(repository / "restore.sh"), "--key-file", key_file, *arguments],
                env={"PATH": "/usr/bin:/bin"},
                stdin=subprocess.DEVNULL,
                check=True,
                timeout=120,
                capture_output=True,
            )  # fmt: skip

        data, wal = server_folder / "data", server_folder / "wal"
        script("restore", artefact, str(data))
        script("wal", "pg", str(wal))
        if server.owner:
            subprocess.run(["chown", "-R", "{}:{}".format(*server.owner), str(wal)], check=True)
        (data / "recovery.signal").touch()
        with open(data / "postgresql.auto.conf", "a", encoding="utf-8") as settings:
            settings.write(f'restore_command = \'cp {wal}/%f "%p" || cp {wal}/%f.partial "%p"\'\n')
        with PostgresServer(programs, data_folder=data) as restored:
            assert wait_until(
                lambda: restored.execute("SELECT pg_is_in_recovery()") == [(False,)], limit_seconds=120
            ), restored.log_tail()
            rows = restored.execute("SELECT what FROM kept_by_wal")
            assert rows == [("before the backup",), ("the last row",)]
