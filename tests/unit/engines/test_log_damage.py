"""What servers that do not start say of their data; and what they say that is no damage."""

from __future__ import annotations

import pytest

from recoup.engines.postgres import log_damage as postgres
from recoup.engines.redis import log_damage as redis

READY = "LOG:  database system is ready to accept connections"


@pytest.mark.parametrize(
    "line",
    [
        "PANIC:  could not locate a valid checkpoint record at 0/1528",
        'FATAL:  could not open file "global/pg_control": No such file or directory',
        "ERROR:  invalid page in block 7 of relation base/16384/16397",
        "PANIC:  incorrect checksum in control file",
        'FATAL:  could not open file "base/5/1259": No such file or directory',
    ],
)
def test_damage_is_read_from_the_log_of_a_postgresql(line: str) -> None:
    assert postgres.damage_in_log(f"LOG:  starting\n{line}\nLOG:  shutting down") == (line,)


def test_a_server_that_says_the_same_again_and_again_is_quoted_once() -> None:
    said = 'FATAL:  relation mapping file "global/pg_filenode.map" contains invalid data'
    log = f"2026-11-23 17:03:55.261 UTC [605] {said}\n2026-11-23 17:03:55.264 UTC [606] {said}\n"
    assert postgres.damage_in_log(log) == (said,)


@pytest.mark.parametrize(
    "line",
    [
        'FATAL:  could not write to file "pg_wal/xlogtemp.29": No space left on device',
        "FATAL:  database files are incompatible with server",
        'FATAL:  data directory "/data" has wrong ownership',
        'FATAL:  password authentication failed for user "shop"',
        "LOG:  database system was not properly shut down; automatic recovery in progress",
    ],
)
def test_a_full_disk_wrong_rights_and_another_version_are_no_damage(line: str) -> None:
    assert postgres.damage_in_log(line) == ()


def test_what_was_said_before_the_server_was_well_again_does_not_count() -> None:
    assert postgres.damage_in_log(f"PANIC:  could not locate a valid checkpoint record\n{READY}\nLOG:  stop") == ()


@pytest.mark.parametrize(
    "line",
    [
        "# Bad file format reading the append only file appendonly.aof.1.incr.aof: make a backup of your AOF file",
        "# Wrong signature trying to load DB from file",
        "# Short read or OOM loading DB. Unrecoverable error, aborting now.",
    ],
)
def test_damage_is_read_from_the_log_of_a_redis(line: str) -> None:
    assert redis.damage_in_log(f"1:M 23 Nov 2026 17:03:55.261 {line}") == (line,)


def test_a_redis_that_may_not_read_its_file_is_not_damaged() -> None:
    assert redis.damage_in_log("# Fatal error loading the DB, check server logs: Permission denied. Exiting.") == ()
