"""Dumps of real servers, by both ways, and the proof that they are whole."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from recoup.demo.host import wait_until
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer
from recoup.engines.engine import StreamSink
from recoup.engines.postgres.access import DirectAccess
from recoup.engines.postgres.archive import ArchiveReader
from recoup.engines.postgres.dump import DumpFormat, DumpRequest, default_stream_name, take_dump
from recoup.engines.postgres.dump_check import check_dump_copy
from recoup.kernel.errors import EngineError
from recoup.kernel.finding import Verdict, overall
from recoup.kernel.process import Command, run
from recoup.kernel.secret import Secret
from tests.integration.held_copy import HeldCopy
from tests.integration.logical import both_ways, direct, dumped, nasty_database, small_database
from tests.real import require_found


@pytest.mark.parametrize("form", list(DumpFormat))
def test_a_dump_is_whole_and_says_so(any_postgres: PostgresServer, form: DumpFormat) -> None:
    name = nasty_database(any_postgres)
    for access in both_ways(any_postgres):
        copy = dumped(access, name, form=form)
        findings = check_dump_copy(copy)
        assert overall(findings) is Verdict.OK, findings
        assert {finding.subject for finding in findings} == {default_stream_name(name, form), "globals.sql"}
        facts = copy.facts["databases"][name]
        assert facts["plain_bytes"] == len(copy.data[facts["stream"]])
        assert facts["warnings"] == []
        assert 'recoup "odd" reader' in facts["roles"]
        assert b"recoup_owner" in copy.data["globals.sql"]


@pytest.mark.parametrize("form", list(DumpFormat))
def test_a_dump_cut_anywhere_is_not_whole(postgres15: PostgresServer, form: DumpFormat) -> None:
    name = nasty_database(postgres15)
    copy = dumped(direct(postgres15), name, form=form)
    stream = default_stream_name(name, form)
    whole = copy.data[stream]
    for length in {0, 1, 5, 11, 100, 3000, len(whole) // 3, len(whole) // 2, len(whole) - 500, len(whole) - 60}:
        copy.data[stream] = whole[:length]
        assert overall(check_dump_copy(copy)) is Verdict.FAILED, length


@pytest.mark.parametrize("form", list(DumpFormat))
def test_a_row_missing_from_a_dump_is_found_by_counting(postgres15: PostgresServer, form: DumpFormat) -> None:
    name = small_database(postgres15)
    copy = dumped(direct(postgres15), name, form=form)
    assert copy.fingerprint is not None
    copy.fingerprint["databases"][name]["tables"]['"public"."orders"']["rows"] = 101
    findings = check_dump_copy(copy)
    assert overall(findings) is Verdict.FAILED
    assert any("100 rows for table" in finding.detail and "101" in finding.detail for finding in findings)


def test_rows_written_during_the_dump_are_in_neither_dump_nor_fingerprint(postgres17: PostgresServer) -> None:
    name = small_database(postgres17, rows=20_000)
    stop = threading.Event()

    def write() -> None:
        with postgres17.connect(name) as connection:
            number = 20_000
            while not stop.is_set():
                number += 1
                connection.execute("INSERT INTO orders VALUES (%s, 'during')", [number])
                connection.execute("UPDATE orders SET note = 'changed' WHERE id = %s", [number % 20_000])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        copies = [dumped(direct(postgres17), name) for _ in range(3)]
    finally:
        stop.set()
        writer.join()
    for copy in copies:
        assert overall(check_dump_copy(copy)) is Verdict.OK, "the rows dumped are the rows counted"


def test_a_missing_database_is_refused_with_the_list_of_those_that_are_there(postgres15: PostgresServer) -> None:
    name = small_database(postgres15)
    for access in both_ways(postgres15):
        with pytest.raises(EngineError, match="no such database: nope") as missing:
            dumped(access, name, "nope")
        assert name in str(missing.value.hint)


class _Interrupting(HeldCopy):
    """A sink that does something at the first bytes of the dump."""

    def __init__(self, act: Any) -> None:
        super().__init__()
        self._act = act
        self.completed: list[str] = []

    @contextlib.contextmanager
    def stream(self, name: str, **options: Any) -> Iterator[StreamSink]:
        sink = self

        class Writer:
            def __init__(self, inner: StreamSink) -> None:
                self._inner = inner

            def write(self, data: bytes | memoryview) -> None:
                act, sink._act = sink._act, None
                if act is not None and name != "globals.sql":
                    act()
                else:
                    sink._act = act
                self._inner.write(data)

        with super().stream(name, **options) as inner:
            yield Writer(inner)
        self.completed.append(name)


def test_a_server_that_dies_in_the_middle_fails_the_dump_clearly() -> None:
    with PostgresServer(require_found(lambda: find_postgres(15))) as server:
        name = server.new_database("large")
        # More than the buffers between the server and the sink hold: whenever it dies, it has not sent the end.
        server.execute("CREATE TABLE large AS SELECT repeat('x', 1000) FROM generate_series(1, 120000)", name)
        server.execute("CHECKPOINT")
        for access in both_ways(server):
            server.start()
            sink = _Interrupting(server.kill)
            with pytest.raises(EngineError, match=r"closed the connection|pg_dump of database|connection to"):
                take_dump(access, sink, DumpRequest(databases=(name,), with_globals=False))
            assert sink.completed == []


def _nobody_in(server: PostgresServer, database: str) -> bool:
    return not server.execute(f"SELECT 1 FROM pg_stat_activity WHERE datname = '{database}'")


def test_a_sink_that_fails_ends_pg_dump_and_the_fingerprint(postgres15: PostgresServer) -> None:
    name = small_database(postgres15, rows=300_000)

    def fail() -> None:
        raise EngineError("the repository is full")

    for access in both_ways(postgres15):
        with pytest.raises(EngineError, match="the repository is full"):
            take_dump(access, _Interrupting(fail), DumpRequest(databases=(name,), with_globals=False))
        assert wait_until(lambda: _nobody_in(postgres15, name), limit_seconds=120), "a session was left behind"


def test_without_the_right_to_read_passwords_the_globals_say_what_was_left_out(any_postgres: PostgresServer) -> None:
    name = small_database(any_postgres)
    any_postgres.execute("DROP ROLE IF EXISTS dumper")
    any_postgres.execute("CREATE ROLE dumper LOGIN")
    any_postgres.execute("GRANT SELECT ON orders TO dumper", name)
    access = DirectAccess(Secret(any_postgres.url(user="dumper")), folders=[any_postgres.bin])
    copy = HeldCopy()
    copy.complete(take_dump(access, copy, DumpRequest(databases=(name,))))
    assert [what for what, _ in copy.left_out] == ["passwords of the roles"]
    assert copy.facts["globals"]["with_passwords"] is False
    assert overall(check_dump_copy(copy)) is Verdict.OK
    any_postgres.execute("REVOKE SELECT ON orders FROM dumper", name)


def test_a_table_that_may_not_be_read_fails_the_dump_with_a_hint(postgres15: PostgresServer) -> None:
    name = nasty_database(postgres15)
    postgres15.execute("DROP ROLE IF EXISTS stranger")
    postgres15.execute("CREATE ROLE stranger LOGIN")
    access = DirectAccess(Secret(postgres15.url(user="stranger")), folders=[postgres15.bin])
    with pytest.raises(EngineError, match="permission denied") as refused:
        take_dump(access, HeldCopy(), DumpRequest(databases=(name,), with_globals=False))
    assert "pg_read_all_data" in str(refused.value.hint)


def test_an_odd_database_name_is_dumped_into_a_safe_stream_name(postgres15: PostgresServer) -> None:
    name = "host=evil \"x' ünï"
    postgres15.execute('DROP DATABASE IF EXISTS "{}"'.format(name.replace('"', '""')))
    postgres15.execute('CREATE DATABASE "{}"'.format(name.replace('"', '""')))
    for access in both_ways(postgres15):
        copy = dumped(access, name)
        stream = copy.facts["databases"][name]["stream"]
        assert stream == default_stream_name(name, DumpFormat.CUSTOM)
        assert stream.isascii()
        assert overall(check_dump_copy(copy)) is Verdict.OK


def test_pg_restore_agrees_with_our_reading_of_the_contents(any_postgres: PostgresServer) -> None:
    name = nasty_database(any_postgres)
    copy = dumped(direct(any_postgres), name)
    data = copy.data[f"{name}.dump"]
    contents = ArchiveReader(iter([data])).contents()
    listed = run(Command(argv=[any_postgres.program("pg_restore"), "--list"]), stdin=data).stdout.decode()
    assert f"TOC Entries: {len(contents.entries)}" in listed
    assert contents.compression == 0
    assert contents.database == name
