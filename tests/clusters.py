"""PostgreSQL clusters for the tests: made once for each version and session, then copied.

A copy is given a system identifier of its own, so that two servers of the tests are two clusters, as if each had been
made by ``initdb``.
"""

from __future__ import annotations

import secrets
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import google_crc32c

from recoup.demo.host import new_folder
from recoup.demo.postgres_server import PostgresServer

Make = Callable[[PostgresServer, Sequence[str]], None]

_made: dict[tuple[str, ...], Path] = {}


def copying(make: Make) -> Make:
    """In place of ``make``: copy what it made for the same programs and arguments before."""

    def make_or_copy(server: PostgresServer, arguments: Sequence[str]) -> None:
        if server.password is not None:  # it is in the cluster, and each has another one
            make(server, arguments)
            return
        what = (server.program("initdb"), server.user, *arguments)
        if what not in _made:
            make(server, arguments)
            kept = new_folder("cluster", server.owner) / "data"
            _copy(server.data_folder, kept)
            _made[what] = kept
            return
        _copy(_made[what], server.data_folder)
        become_another(server.data_folder)

    return make_or_copy


def _copy(source: Path, target: Path) -> None:
    # Most of the first WAL segment is zeros.
    subprocess.run(["cp", "-a", "--reflink=auto", "--sparse=always", str(source), str(target)], check=True)


def become_another(folder: Path) -> None:
    """Give a stopped cluster another system identifier.

    It is the first field of ``global/pg_control`` (src/include/catalog/pg_control.h), whose last one is a CRC-32C of
    all before it, and in the long header of each WAL segment's first page (src/include/access/xlog_internal.h).
    """
    identifier = (int(time.time()) << 32 | secrets.randbits(32)).to_bytes(8, "little")
    control = folder / "global" / "pg_control"
    data = bytearray(control.read_bytes())
    end = next(at for at in range(200, 512, 4) if _crc(data[:at]) == data[at : at + 4])
    data[:8] = identifier
    data[end : end + 4] = _crc(data[:end])
    control.write_bytes(data)
    for segment in (folder / "pg_wal").glob("0*"):
        with open(segment, "r+b") as handle:
            handle.seek(24)
            handle.write(identifier)


def _crc(data: bytes | bytearray) -> bytes:
    return int(google_crc32c.value(bytes(data))).to_bytes(4, "little")
