"""``kill -9`` of a restore into a running Redis: it keeps its data and its settings, and the same command ends it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recoup.demo.programs import find_redis
from recoup.demo.servers import RedisServer
from recoup.engines.redis.fingerprint import compare
from recoup.engines.redis.restore_server import restore_rdb_to_server
from recoup.kernel.finding import Verdict, overall
from tests.integration.redis_copies import MemoryCopy, fill, fingerprint_now, take
from tests.real import require_found

pytestmark = pytest.mark.redis

# Restores, and kills itself when the first piece has been read (0) or the last one (1) was about to be sent.
_CHILD = """
import os, signal, sys
from recoup.engines.redis.restore_server import restore_rdb_to_server
from tests.integration.redis_copies import MemoryCopy
class Deadly(MemoryCopy):
    def read(self, name, start=0, length=None):
        pieces = list(super().read(name, start, length))
        if length is not None:
            yield from pieces
            return
        yield from pieces[:1] if sys.argv[2] == "0" else pieces
        os.kill(os.getpid(), signal.SIGKILL)
data = open(sys.argv[1], "rb").read()
restore_rdb_to_server(Deadly(data), sys.stdin.read(), force=True, safety=MemoryCopy())
"""


@pytest.mark.parametrize("moment", ["0", "1"], ids=["after the first piece", "before the last piece"])
@pytest.mark.parametrize("major", [6, 8])
def test_a_killed_restore_leaves_the_old_data_and_the_same_command_ends_it(
    major: int, moment: str, redis6: RedisServer, tmp_path: Path
) -> None:
    fill(redis6)
    copy = take(redis6)
    assert copy.fingerprint is not None
    (tmp_path / "copy").write_bytes(copy.data)
    with RedisServer(require_found(lambda: find_redis(major)), appendonly=True) as server:
        with contextlib.closing(server.client()) as client:
            client.set("old", "data")
            client.config_set("masterauth", "its own")
            client.config_set("repl-diskless-sync-delay", 0)
            client.config_set("repl-diskless-load", "swapdb")
        killed = subprocess.run(
            [sys.executable, "-c", _CHILD, str(tmp_path / "copy"), moment],
            cwd=Path(__file__).parents[2],
            input=server.url().encode(),
            timeout=60,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL
        with contextlib.closing(server.client()) as client:
            assert client.get("old") == b"data"
            assert client.info("replication")["role"] == "slave"  # what the kill left behind
        safety = MemoryCopy()
        restore_rdb_to_server(copy, server.url(), force=True, safety=safety)
        assert b"old" in safety.data
        with contextlib.closing(server.client()) as client:
            assert client.info("replication")["role"] == "master"
            assert client.config_get("master*") == {"masterauth": "its own", "masteruser": ""}
            assert client.config_get("repl-diskless-load") == {"repl-diskless-load": "swapdb"}
        assert overall(compare(copy.fingerprint, fingerprint_now(server, copy.fingerprint))) is Verdict.OK
