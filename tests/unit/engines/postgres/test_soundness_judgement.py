"""What a refusal says about the data: damage, something missing here, or no time. And counting what was seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.engines.postgres.session import Row, SqlError, error_of
from recoup.engines.postgres.soundness_ask import Budget, Examiner, Refusal, judge
from recoup.engines.postgres.soundness_catalog import catalog_reference
from recoup.engines.postgres.soundness_checksums import PageFile, page_file
from recoup.engines.postgres.soundness_sequences import SequenceState
from recoup.engines.postgres.soundness_tally import Tally
from recoup.engines.postgres.zero_pages import ZeroPages, zero_runs
from recoup.kernel.errors import EngineError
from recoup.kernel.finding import Verdict, overall

OK, FAILED, UNKNOWN = Verdict.OK, Verdict.FAILED, Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("code", "message", "reading", "opinion"),
    [
        ("XX001", "invalid page in block 3 of relation base/5/16384", FAILED, FAILED),
        ("XX002", 'index "i" contains unexpected zero page at block 2', FAILED, FAILED),
        ("XX000", "cache lookup failed for type 16777", FAILED, FAILED),
        ("58P01", 'could not open file "base/5/16384": No such file or directory', FAILED, FAILED),
        ("22021", 'invalid byte sequence for encoding "UTF8": 0xee', FAILED, UNKNOWN),
        ("22012", "division by zero", FAILED, UNKNOWN),
        ("42883", "function f(integer) does not exist", FAILED, UNKNOWN),
        ("58P01", 'could not access file "$libdir/postgis-3": No such file or directory', UNKNOWN, UNKNOWN),
        ("XX000", 'could not load library "/l/x.so": undefined symbol', UNKNOWN, UNKNOWN),
        ("42883", 'could not find function "hstore_out" in file "/l/hstore.so"', UNKNOWN, UNKNOWN),
        ("XX000", 'collation "de" has no actual version, but a version was recorded', UNKNOWN, UNKNOWN),
        ("53100", "could not extend file: No space left on device", UNKNOWN, UNKNOWN),
        ("53200", "out of memory", UNKNOWN, UNKNOWN),
        ("55P03", "canceling statement due to lock timeout", UNKNOWN, UNKNOWN),
        ("57014", "canceling statement due to statement timeout", UNKNOWN, UNKNOWN),
        ("58030", 'could not read block 3 in file "base/5/1": Input/output error', UNKNOWN, UNKNOWN),
        ("0A000", 'extension "amcheck" is not available', UNKNOWN, UNKNOWN),
        ("42501", "permission denied for table t", UNKNOWN, UNKNOWN),
    ],
)
def test_a_refusal_is_damage_or_unknown_and_never_ok(
    code: str, message: str, reading: Verdict, opinion: Verdict
) -> None:
    assert judge(code, message).verdict is reading
    assert judge(code, message, opinion=True).verdict is opinion


def test_the_place_of_the_sandbox_is_not_told_but_the_code_is() -> None:
    refused = error_of("invalid page in block 3", "XX001", "database 'shop' on /state/sandboxes/1/socket:5432")
    assert isinstance(refused, SqlError)
    assert judge(refused.sqlstate, refused.message).detail == "invalid page in block 3 (SQLSTATE XX001)"


@dataclass
class Dying:
    """A server whose process ends at every question but the first ``settings`` ones."""

    major: int = 17
    sessions: int = 0
    comes_back: bool = True
    asked: list[str] = field(default_factory=list)

    def session(self, database: str = "postgres") -> Any:
        self.sessions += 1
        if self.sessions > 1 and not self.comes_back:
            raise EngineError("connection refused")
        return self

    def execute(self, sql: str) -> None:
        pass

    def query(self, sql: str) -> list[Row]:
        self.asked.append(sql)
        raise EngineError("connection lost: server closed the connection unexpectedly")

    def close(self) -> None:
        pass


def test_a_question_that_ends_the_server_twice_is_damage_and_is_not_asked_again() -> None:
    server = Dying()
    examiner = Examiner(server, "shop", Budget(60))  # type: ignore[arg-type]
    answer = examiner.ask("SELECT 1")
    assert isinstance(answer, Refusal)
    assert (answer.verdict, server.asked, server.sessions) == (FAILED, ["SELECT 1"] * 2, 2)
    assert "twice" in answer.detail
    other = examiner.ask("SELECT somebody.s_function()", opinion=True)
    assert isinstance(other, Refusal)
    assert other.verdict is UNKNOWN


def test_a_server_that_does_not_come_back_makes_everything_after_it_unknown() -> None:
    server = Dying(comes_back=False)
    examiner = Examiner(server, "shop", Budget(60))  # type: ignore[arg-type]
    examiner.ask("SELECT 1")
    answer = examiner.ask("SELECT 2")
    assert isinstance(answer, Refusal)
    assert answer.verdict is UNKNOWN
    assert "does not answer any more" in answer.detail
    assert server.asked == ["SELECT 1"]


def test_without_time_nothing_is_asked() -> None:
    server = Dying()
    answer = Examiner(server, "shop", Budget(0)).ask("SELECT 1")  # type: ignore[arg-type]
    assert isinstance(answer, Refusal)
    assert (answer.verdict, answer.out_of_time, server.sessions) == (UNKNOWN, True, 0)


@given(st.lists(st.sampled_from(["ok", "failed", "unknown", "late"]), max_size=80))
def test_no_object_that_is_not_well_ends_in_a_good_finding(fates: list[str]) -> None:
    tally = Tally("check", "tables", unit="tables", not_checked="this")
    late = Refusal(verdict=UNKNOWN, detail="late", out_of_time=True)
    for number, fate in enumerate(fates):
        tally.examined += 1
        if fate == "failed":
            tally.failed(f"table {number}", "bad")
        elif fate == "unknown":
            tally.unknown(f"table {number}", "missing")
        elif fate == "late":
            tally.refused(f"table {number}", late)
    found = tally.findings()
    expected = FAILED if "failed" in fates else UNKNOWN if {"unknown", "late"} & set(fates) else OK
    assert overall(found) is expected
    assert len(found) <= 27
    assert found[-1].not_checked == "this"
    if expected is OK:
        assert found[0].detail == f"{len(fates)} tables"
    elif len(fates) <= 10:
        said = " ".join(finding.subject + finding.detail for finding in found)
        assert all(f"table {number}" in said for number, fate in enumerate(fates) if fate != "ok")


PAGE = 512


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 2000), st.integers(0, PAGE - 1))
def test_runs_of_zero_pages_are_found_however_the_content_comes(pages: list[bool], cut: int, torn: int) -> None:
    data = b"".join(bytes(PAGE) if zero else b"x" * PAGE for zero in pages) + bytes(torn)
    pieces = [data[at : at + cut] for at in range(0, len(data), cut)]
    runs = list(zero_runs(pieces, PAGE))
    named = {page for first, count, _ in runs for page in range(first, first + count)}
    assert named == {number for number, zero in enumerate(pages) if zero}
    assert [last for _, _, last in runs] == [False] * (len(runs) - 1) + ([pages[-1]] if runs else [])
    census = ZeroPages()
    take = census.file("f", PAGE)
    for piece in pieces:
        take(piece)
    assert census.pages == len(named)
    assert sum(census.inner.values()) == sum(count for _, count, last in runs if not last)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/d/base/5/16384", PageFile(database=5, tablespace=1663, node=16384)),
        ("/d/base/5/16384_vm", PageFile(database=5, tablespace=1663, node=16384)),
        ("/d/base/5/16384.12", PageFile(database=5, tablespace=1663, node=16384)),
        ("/d/global/1262_fsm.1", PageFile(database=None, tablespace=1664, node=1262)),
        ("/d/pg_tblspc/99/PG_17_202406281/5/16384", PageFile(database=5, tablespace=99, node=16384)),
        ("/d/base/5/PG_VERSION", None),
        (str(Path("elsewhere")), None),
    ],
)
def test_the_path_of_a_file_says_whose_it_is(path: str, expected: PageFile | None) -> None:
    assert page_file(path) == expected


def test_where_a_sequence_goes_next() -> None:
    assert SequenceState(last=7, called=True, step=1).next == 8
    assert SequenceState(last=7, called=False, step=1).next == 7
    assert SequenceState(last=-7, called=True, step=-5).next == -12


def test_a_reference_in_an_array_is_followed_element_by_element() -> None:
    sql = catalog_reference(
        "pg_constraint", ["conrelid", "conkey"], "pg_attribute", ["attrelid", "attnum"], array=True, optional=True
    )
    assert 'SELECT ctid AS place, "conrelid", unnest("conkey") AS "conkey" FROM pg_constraint' in sql
    assert 'fk."conrelid" <> 0 AND fk."conkey" <> 0' in sql
    assert 'pk."attrelid" = fk."conrelid" AND pk."attnum" = fk."conkey"' in sql
