"""The decisions behind the live grades of a Redis: which server, what an answer means, why a server gave up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.engines.redis.connection import Reply
from recoup.engines.redis.fingerprint import Fingerprinter
from recoup.engines.redis.live import databases_of
from recoup.engines.redis.local_servers import fitting, release
from recoup.engines.redis.plan_checks import RedisCheck, judge
from recoup.engines.redis.rdb import read_rdb
from recoup.engines.redis.replay import ScratchProgram
from recoup.engines.redis.sandbox_server import settings_of, why_ended
from recoup.engines.redis.seal import newest_loadable
from recoup.engines.redis.stream_windows import Inventory, Join, Piece, RdbBase, lead_to
from recoup.kernel.errors import DamageError, EngineError, UncheckedError
from recoup.kernel.finding import Verdict
from tests.unit.engines.redis.test_rdb import entry, rdb, text

_VERSIONS = ["5.0.14", "6.0.16", "6.2.14", "7.0.15", "7.2.5", "7.4.1", "8.0.2", "8.2.3"]


def _programs(versions: list[str]) -> list[ScratchProgram]:
    return [ScratchProgram(path=f"/{one}", version=one) for one in versions]


@given(st.lists(st.sampled_from(_VERSIONS), unique=True), st.sampled_from(_VERSIONS))
def test_the_server_that_is_chosen_loads_the_copy_and_none_that_is_nearer_does(here: list[str], of_copy: str) -> None:
    rdb_version = newest_loadable(of_copy)
    chosen = fitting(_programs(here), rdb_version=rdb_version, server_version=of_copy)
    able = [one for one in here if (release(one) or (0, 0)) >= (release(of_copy) or (0, 0))]
    if chosen is None:
        assert not able
        return
    assert newest_loadable(chosen.version) >= rdb_version
    assert release(chosen.version) == min(release(one) or (0, 0) for one in able)
    if of_copy in here:
        assert chosen.version == of_copy


def test_a_copy_of_an_unknown_release_takes_the_oldest_server_that_loads_it() -> None:
    chosen = fitting(_programs(_VERSIONS), rdb_version=11, server_version="")
    assert chosen is not None
    assert chosen.version == "7.2.5"


@pytest.mark.parametrize(
    ("reply", "check", "verdict"),
    [
        (5, RedisCheck(command="x", at_least=5, at_most=5), Verdict.OK),
        (b"5", RedisCheck(command="x", equals=5), Verdict.OK),
        (b"5", RedisCheck(command="x", equals="5"), Verdict.OK),
        (5, RedisCheck(command="x", equals="5"), Verdict.OK),
        (b"5.0", RedisCheck(command="x", equals="5"), Verdict.FAILED),
        (1234567, RedisCheck(command="x", equals="1234567"), Verdict.OK),
        (1000001, RedisCheck(command="x", equals="1e+06"), Verdict.FAILED),
        (b"9007199254740993", RedisCheck(command="x", equals=9007199254740992), Verdict.FAILED),
        (9007199254740993, RedisCheck(command="x", at_most=9007199254740992), Verdict.FAILED),
        (1, RedisCheck(command="x", equals=True), Verdict.OK),
        (0, RedisCheck(command="x", equals=True), Verdict.FAILED),
        (0, RedisCheck(command="x", equals=False), Verdict.OK),
        ([b"a", b"b"], RedisCheck(command="x", at_least=2), Verdict.OK),
        ([b"a"], RedisCheck(command="x", at_least=2), Verdict.FAILED),
        (None, RedisCheck(command="x", at_most=3), Verdict.FAILED),
        (None, RedisCheck(command="x", equals=""), Verdict.FAILED),
        (b"abc", RedisCheck(command="x", at_most=3), Verdict.FAILED),
        (b"nan", RedisCheck(command="x", at_least=0), Verdict.FAILED),
        (b"nan", RedisCheck(command="x", at_most=0), Verdict.FAILED),
        ("OK", RedisCheck(command="x", equals="OK"), Verdict.OK),
    ],
)
def test_an_answer_is_what_was_expected_or_it_failed(reply: Reply, check: RedisCheck, verdict: Verdict) -> None:
    assert judge(reply, check)[0] is verdict


def test_a_large_number_is_told_to_its_last_digit() -> None:
    said = judge(1234567, RedisCheck(command="DBSIZE", at_least=2345678))[1]
    assert said == "1234567; at least 2345678 was expected"


def test_an_unexpected_text_is_not_shown() -> None:
    _, detail = judge(b"hunter2-the-password", RedisCheck(command="GET x", equals="other"))
    assert "hunter2" not in detail
    assert "a text of 20 characters" in detail


@pytest.mark.parametrize(
    ("log", "error", "named"),
    [
        ("Wrong RDB checksum expected: (1) but got (2). Aborting now.", DamageError, "does not load"),
        ("Short read or OOM loading DB. Unrecoverable error, aborting now.", DamageError, "does not load"),
        ("Internal error in RDB reading offset 12, function at rdb.c:1 -> x", DamageError, "does not load"),
        ("Fatal error loading the DB, check server logs. Exiting.", DamageError, "does not load"),
        ("Fatal error loading the DB: Permission denied. Exiting.", UncheckedError, "Permission denied"),
        ("The RDB file contains module data I can't load: no matching module type 'abc'", UncheckedError, "module abc"),
        ("Can't handle RDB format version 99", UncheckedError, "RDB version 99"),
        ("Out Of Memory allocating 12 bytes!\n=== REDIS BUG REPORT START", UncheckedError, "memory"),
        # Killed in the middle of a good load: not a word of damage.
        ("Loading RDB produced by version 7.0.15\nRDB age 3 seconds\nRDB memory usage 1 Mb", EngineError, "killed"),
        ("", EngineError, "it said nothing"),
    ],
)
def test_why_a_server_gave_up_is_told_apart(log: str, error: type[Exception], named: str) -> None:
    why = why_ended(log)
    assert type(why) is error
    assert named in why.message


def test_the_configuration_of_a_sandbox_knows_nothing_of_production() -> None:
    for version in _VERSIONS:
        settings = settings_of(version, 3)
        assert settings["port"] == "0"
        assert settings["databases"] == "16"
        assert not {"replicaof", "loadmodule", "aclfile", "requirepass", "bind", "include"} & set(settings)
        assert ("sanitize-dump-payload" in settings) == (version not in ("5.0.14", "6.0.16"))


def test_a_server_gets_as_many_databases_as_the_copy_needs() -> None:
    assert databases_of({"keys": {"0": 1, "31": 2}, "settings": {"databases": "16"}}) == 32
    assert databases_of({"settings": {"databases": "64"}}) == 64
    assert databases_of({}) == 0


_NOW = 1_700_000_000_000
_expiries = st.one_of(st.none(), st.integers(_NOW - 10_000, _NOW + 90_000_000))


def _entry(number: int, kind: int, expires: int | None) -> bytes:
    value = text(b"value") if kind == 0 else b"\x01" + text(b"field") + text(b"value")
    stated = b"" if expires is None else b"\xfc" + expires.to_bytes(8, "little")
    return stated + entry(kind, b"key %d" % number, value)


@given(
    st.lists(st.tuples(st.sampled_from([0, 4]), _expiries), max_size=12),
    st.lists(st.integers(_NOW - 20_000, _NOW + 100_000_000), min_size=1, max_size=4),
)
def test_fingerprints_of_several_moments_in_one_reading_are_those_of_several_readings(
    keys: list[tuple[int, int | None]], moments: list[int]
) -> None:
    data = rdb(b"\xfe\x00", *(_entry(number, kind, expires) for number, (kind, expires) in enumerate(keys)))
    together = Fingerprinter(at_ms=moments[0], origin_ms=_NOW, also_at_ms=moments[1:])
    for record in read_rdb([data]):
        together.add(record)
    for moment, result in zip(moments, together.results(), strict=True):
        alone = Fingerprinter(at_ms=moment, origin_ms=_NOW)
        for record in read_rdb([data]):
            alone.add(record)
        assert result == alone.result()


_BEGIN = datetime(2026, 11, 23, tzinfo=UTC)


def _base(name: str, offset: int, line: str = "a") -> RdbBase:
    return RdbBase(id=name, replication_id=line, offset=offset, time=_BEGIN + timedelta(seconds=offset))


def _piece(start: int, end: int, line: str = "a") -> Piece:
    time = _BEGIN + timedelta(seconds=end)
    return Piece(key=f"{line}{start}", replication_id=line, start=start, end=end, time=time)


def test_the_nearest_copy_whose_stream_leads_to_the_very_place_is_taken() -> None:
    bases = [_base("first", 10), _base("second", 50), _base("third", 90)]
    pieces = [_piece(0, 40), _piece(40, 70), _piece(70, 100)]
    choice = lead_to(bases[2], bases, Inventory(pieces))
    assert choice is not None
    assert choice.base.id == "second"
    assert [one.start for one in choice.pieces] == [40, 70]
    # A hole before the place, or an end before it, leads nowhere.
    assert lead_to(bases[2], bases, Inventory([_piece(0, 40), _piece(70, 100)])) is None
    assert lead_to(bases[2], bases, Inventory(pieces[:2])) is None
    assert lead_to(bases[0], bases, Inventory(pieces)) is None
    # Nothing came between: the very same place.
    again = RdbBase(id="again", replication_id="a", offset=90, time=_BEGIN + timedelta(seconds=95))
    same = lead_to(again, [*bases, again], Inventory(pieces))
    assert same is not None
    assert (same.base.id, same.pieces) == ("third", ())


def test_a_stream_that_goes_on_under_another_id_leads_there_too() -> None:
    bases = [_base("first", 10), _base("later", 90, "b")]
    inventory = Inventory([_piece(0, 60), _piece(60, 100, "b")], [Join(replication_id="b", start=60, before="a")])
    choice = lead_to(bases[1], bases, inventory)
    assert choice is not None
    assert [one.replication_id for one in choice.pieces] == ["a", "b"]
    other = Inventory([_piece(0, 60), _piece(60, 100, "b")])
    assert lead_to(bases[1], bases, other) is None
