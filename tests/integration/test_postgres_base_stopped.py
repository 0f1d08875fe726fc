"""What a base backup recovers to is fixed when it is told to be, and its WAL comes only then: on real servers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from recoup.demo.host import wait_until
from recoup.demo.programs import Programs
from recoup.demo.servers import PostgresServer
from recoup.engines.engine import CopyFacts
from recoup.engines.postgres.base_backup import take_base_backup
from recoup.engines.postgres.base_by_program import take_base_backup_by_program
from recoup.engines.postgres.place_folder import restore_base_to_folder
from recoup.kernel import clock
from recoup.kernel.secret import Secret
from tests.integration.postgres_copies import MemoryCopy
from tests.integration.test_postgres_base_by_program import access_to


class _Counted(MemoryCopy):
    """Knows how much of the stream that is being written has come."""

    _current: Any = None

    @property
    def come(self) -> int:
        return len(self._current.data) if self._current is not None else 0

    @contextlib.contextmanager
    def stream(self, name: str, **options: Any) -> Iterator[Any]:
        with super().stream(name, **options) as self._current:
            yield self._current


def _by_protocol(server: PostgresServer, copy: MemoryCopy, told: Callable[[datetime], None]) -> CopyFacts:
    return take_base_backup(Secret(server.url()), copy, label="stopped", on_stopped=told)


def _by_program(server: PostgresServer, copy: MemoryCopy, told: Callable[[datetime], None]) -> CopyFacts:
    return take_base_backup_by_program(access_to(server), copy, label="stopped", on_stopped=told)


@pytest.mark.parametrize("take", [_by_protocol, _by_program])
def test_what_is_committed_when_the_stop_is_told_is_not_in_the_copy_and_the_wal_still_comes(
    take: Callable[[PostgresServer, MemoryCopy, Callable[[datetime], None]], CopyFacts],
    any_postgres: PostgresServer,
    server_folder: Path,
) -> None:
    database = any_postgres.new_database("stopped")
    any_postgres.execute("CREATE TABLE t AS SELECT 'before' AS t", database)
    copy, begun = _Counted(), clock.now()
    told: list[tuple[datetime, datetime, int]] = []

    def note(earliest: datetime) -> None:
        told.append((earliest, clock.now(), copy.come))
        any_postgres.execute("INSERT INTO t VALUES ('after')", database)

    copy.copy_facts = take(any_postgres, copy, note)
    ((earliest, latest, come),) = told
    assert begun <= earliest <= latest
    assert come <= len(copy.data["base.tar"]) - copy.facts["wal_segment_bytes"], "a segment of WAL at least follows"
    placed = restore_base_to_folder(copy, server_folder / "restored", owner=any_postgres.owner)
    with PostgresServer(Programs(path=any_postgres.bin), data_folder=placed.folder) as restored:
        assert restored.execute("SELECT t FROM t", database) == [("before",)]


def test_of_a_standby_whose_wal_goes_on_meanwhile_it_is_told_when_the_wal_has_come(
    postgres17: PostgresServer, server_folder: Path
) -> None:
    first = MemoryCopy()
    first.copy_facts = take_base_backup(Secret(postgres17.url()), first, label="for a standby")
    folder = restore_base_to_folder(first, server_folder / "standby", owner=postgres17.owner).folder
    (folder / "standby.signal").touch()
    following = {"primary_conninfo": postgres17.url()}
    with PostgresServer(Programs(path=postgres17.bin), data_folder=folder, settings=following) as standby:
        received = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'"
        assert wait_until(lambda: standby.execute(received) == [(1,)], limit_seconds=120)
        postgres17.execute("CHECKPOINT")
        copy, told = _Counted(), []
        _by_protocol(standby, copy, lambda _: told.append(copy.come))
        assert told == [len(copy.data["base.tar"])]
