"""Decisions about chains of incremental backups: do they fit together, and how much room do they need?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.engines.postgres.base_protocol import BaseBackupOptions
from recoup.engines.postgres.earlier import Earlier
from recoup.engines.postgres.incremental import explain_program, explain_refusal
from recoup.engines.postgres.place_chain import combined_bytes, require_chain
from recoup.engines.postgres.wire import ServerError
from recoup.kernel.errors import DamageError, EngineError, RefusedError

EARLIER = Earlier(
    id="20261123-020000-k7f3q2",
    chain=("20261123-020000-k7f3q2",),
    system_identifier="7",
    timeline=1,
    begin_lsn="0/2000028",
    manifest=list,
)


def _facts(begin: str, since: str | None = None, **more: Any) -> dict[str, Any]:
    found = {"system_identifier": "7", "timeline": 1, "major": 17, "begin_lsn": begin, **more}
    return found if since is None else {**found, "since_lsn": since}


def test_a_chain_fits_when_each_backup_says_that_it_builds_on_the_one_before() -> None:
    require_chain([_facts("0/2"), _facts("0/4", "0/2"), _facts("0/6", "0/4")])


@pytest.mark.parametrize(
    ("chain", "said"),
    [
        ([_facts("0/4", "0/2"), _facts("0/6", "0/4")], "begins with an incremental"),
        ([_facts("0/2"), _facts("0/6", "0/4")], "do not follow"),
        ([_facts("0/2"), _facts("0/4")], "do not follow"),
        ([_facts("0/2"), _facts("0/4", "0/2", timeline=2)], "timeline is 1, then 2"),
        ([_facts("0/2"), _facts("0/4", "0/2", system_identifier="8")], "system_identifier is 7, then 8"),
        ([_facts("0/2"), _facts("0/4", "0/2", major=18)], "major is 17, then 18"),
    ],
)
def test_a_chain_that_does_not_fit_is_refused(chain: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(DamageError, match=said):
        require_chain(chain)


_BLOCK = 8192
#: A relation: how many blocks the base backup has, and which of them each later backup changed or added.
_RELATION = st.tuples(st.integers(0, 40), st.lists(st.sets(st.integers(0, 59)), min_size=1, max_size=4))


@given(relation=_RELATION, linked=st.booleans())
def test_the_room_for_a_relation_is_never_less_than_what_it_is_combined_to(
    relation: tuple[int, list[set[int]]], linked: bool
) -> None:
    blocks, changes = relation
    backups = [{"base/5/1": blocks * _BLOCK}]
    for changed in changes:  # the header is padded to a block when there are blocks
        size = 12 if not changed else _BLOCK + len(changed) * _BLOCK
        backups.append({"base/5/INCREMENTAL.1": size})
    combined = max([blocks, *(one + 1 for changed in changes for one in changed if one < blocks)]) * _BLOCK
    grown = len({one for changed in changes for one in changed if one >= blocks}) * _BLOCK
    needed = combined_bytes(backups, linked=linked)
    if linked and not any(changes):
        assert needed == 0
    else:
        assert needed >= combined + grown


def test_a_file_that_was_sent_whole_needs_its_last_size_alone() -> None:
    backups = [{"a": 1, "b/1": 90_000}, {"a": 5000, "b/1": 8192}, {"a": 3, "b/INCREMENTAL.1": 12}]
    assert combined_bytes(backups, linked=False) == 4096 + 8192
    assert combined_bytes(backups, linked=True) == 0


def test_the_server_is_asked_for_an_incremental_backup_in_its_own_grammar() -> None:
    command = BaseBackupOptions(label="x", incremental=True).command(17)
    assert command.startswith("BASE_BACKUP (LABEL 'x'")
    assert command.endswith(", INCREMENTAL)")
    assert "INCREMENTAL" not in BaseBackupOptions(label="x").command(17)


@pytest.mark.parametrize(
    ("said", "sqlstate", "kind", "hint"),
    [
        ("WAL summaries are required, but no summaries exist", "55000", RefusedError, "wal_summary_keep_time"),
        ("manifest requires WAL from final timeline 1 ending at 0/6, but this backup starts at 0/4", "55000",
         RefusedError, "Take a base backup"),
        ("could not parse backup manifest: unexpected token", "22P02", RefusedError, "Take a base backup"),
        ("WAL summarization is not progressing", "55000", EngineError, "server's log"),
    ],
)  # fmt: skip
def test_what_the_server_says_against_it_comes_with_the_way_out(
    said: str, sqlstate: str, kind: type[Exception], hint: str
) -> None:
    for found in (
        explain_refusal(ServerError(said, sqlstate=sqlstate), EARLIER),
        explain_program(EngineError(f"pg_basebackup ended with status 1: {said}"), EARLIER),
    ):
        assert type(found) is kind
        assert found.hint is not None
        assert hint in found.hint


def test_other_errors_are_left_as_they_are() -> None:
    lost = ServerError("could not read file", sqlstate="58030")
    assert explain_refusal(lost, EARLIER) is lost
    full = EngineError("pg_basebackup ended with status 1: No space left on device")
    assert explain_program(full, EARLIER) is full
