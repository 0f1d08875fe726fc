"""What a server says when it cannot work with a copy, told apart: the copy is bad, or this machine lacks something."""

from __future__ import annotations

import pytest

from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.sandbox_faults import consistent_at, judge_start, lacking
from recoup.engines.postgres.sandbox_settings import closed_settings, preloaded, session_options
from recoup.kernel.errors import DamageError, UncheckedError

LACKING = {
    'FATAL:  could not access file "pg_cron": No such file or directory': "pg_cron",
    'FATAL:  could not load library "/usr/lib/postgresql/16/lib/timescaledb.so": undefined symbol': "timescaledb",
    "FATAL:  resource manager with ID 134 not registered": "134",
    'ERROR:  extension "postgis" is not available': "postgis",
    'ERROR:  could not open extension control file "/usr/share/extension/vector.control": No such file': "vector",
    "FATAL:  could not map anonymous shared memory: Cannot allocate memory": "memory",
    'PANIC:  could not write to file "pg_wal/xlogtemp.7": No space left on device': "room on the disk",
    'FATAL:  could not open file "global/1260": Input/output error': "a disk that works",
    "FATAL:  database files are incompatible with server\nDETAIL:  The database cluster was initialized with BLCKSZ "
    "32768, but the server was compiled with BLCKSZ 8192.": "built as the one",
    "FATAL:  database locale is incompatible with operating system\nDETAIL:  The database was initialized with "
    'LC_COLLATE "de_DE.UTF-8",  which is not recognized by setlocale().': "de_DE.UTF-8",
}  # fmt: skip
BAD = [
    "FATAL:  WAL ends before end of online backup",
    "PANIC:  could not locate a valid checkpoint record at 0/2000080",
    "FATAL:  could not locate required checkpoint record at 0/2000080",
    'FATAL:  could not open file "base/5/1259": No such file or directory',
    "FATAL:  invalid page in block 0 of relation base/5/1259",
    "PANIC:  incorrect checksum in control file",
    "FATAL:  database files are incompatible with server\nDETAIL:  initialized with PG_CONTROL_VERSION 1300",
]


@pytest.mark.parametrize("said", LACKING)
def test_what_this_machine_lacks_is_unknown_and_named(said: str) -> None:
    error = judge_start(f"LOG:  starting\n{said}\nLOG:  shut down\n", exit_status=1, major=16)
    assert isinstance(error, UncheckedError)
    assert LACKING[said] in error.message
    assert error.hint


@pytest.mark.parametrize("said", BAD)
def test_anything_else_that_a_server_dies_of_is_the_copys_fault(said: str) -> None:
    error = judge_start(f"LOG:  starting\n{said}\nLOG:  shut down\n", exit_status=1, major=16)
    assert isinstance(error, DamageError)
    assert said.partition("  ")[2].partition("\n")[0] in error.message


def test_a_server_that_was_killed_says_nothing_of_its_copy() -> None:
    for log in ("", "LOG:  starting\n", "LOG:  startup process (PID 7) was terminated by signal 9: Killed\n"):
        assert isinstance(judge_start(log, exit_status=-9, major=16), UncheckedError)


def test_a_server_that_crashed_by_itself_says_that_the_copy_is_bad() -> None:
    log = "LOG:  startup process (PID 7) was terminated by signal 11: Segmentation fault\n"
    assert isinstance(judge_start(log, exit_status=1, major=16), DamageError)


def test_words_about_rows_are_not_taken_for_something_missing() -> None:
    for said in ('duplicate key value violates unique constraint "memory"', "invalid input syntax for type integer"):
        assert lacking(said) is None


def test_recovery_has_come_as_far_as_the_last_that_the_log_says() -> None:
    log = "x LOG:  consistent recovery state reached at 0/2000100\nx LOG:  redo done at 1/30 system usage: CPU\n"
    assert consistent_at(log) == Lsn.parse("1/30")
    assert consistent_at("LOG:  redo starts at 0/28\n") is None


@pytest.mark.parametrize("major", [14, 15, 16, 17, 18])
def test_the_settings_let_nothing_in_or_out_and_start_no_job(major: int) -> None:
    settings = closed_settings(major, {"settings": {"max_prepared_transactions": "7"}})
    assert settings["listen_addresses"] == settings["archive_command"] == settings["primary_conninfo"] == ""
    assert settings["archive_mode"] == "off"
    assert settings["max_worker_processes"] == settings["max_wal_senders"] == "0"
    assert settings["max_prepared_transactions"] == "7"
    assert ("event_triggers" in settings) is (major >= 17)
    assert ("-c event_triggers=off" in session_options(major)) is (major >= 17)


def test_preloaded_libraries_are_read_as_the_server_lists_them() -> None:
    assert preloaded({"settings": {"shared_preload_libraries": 'pg_cron, "auto_explain"'}}) == (
        "pg_cron",
        "auto_explain",
    )
    assert preloaded({}) == ()
