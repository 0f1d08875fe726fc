"""What is seen from another machine: silence, broken promises, and nothing that is not so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.assembly.protect.streams import stream_of
from recoup.assembly.watch.outside import watch
from recoup.backup.run_records import WorkerRecord
from recoup.kernel import clock
from recoup.kernel.errors import DamageError, RecoupError
from recoup.kernel.finding import Verdict, overall
from recoup.repository.catalog import Catalog, Entry
from recoup.repository.heartbeat import Heartbeat, Promise, read_heartbeats, write_heartbeat
from recoup.repository.repository import Repository, create_repository
from recoup.repository.seal import Key
from recoup.storage.memory import MemoryStore

_NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
_MINUTE, _SECOND = timedelta(minutes=1), timedelta(seconds=1)
_KEY = Key.from_text("00c0ffee" * 8)


def _repository() -> Repository:
    return create_repository("there", MemoryStore(), _KEY)


def _catalog(age: timedelta) -> Catalog:
    begun = clock.to_text(_NOW - age)
    entry = Entry(
        id="20261123-020000-k7x2mq", service="postgres", engine="postgres", kind="base", label=None, begun_text=begun,
        ended_text=begun, stored_bytes=1, plain_bytes=1, repositories=("there",),
    )  # fmt: skip
    return Catalog(entries=(entry,))


def _beat(
    age: timedelta, *, streamed: timedelta | None = None, rpo: timedelta = _MINUTE, alarms: tuple[str, ...] = ()
) -> Heartbeat:
    written = _NOW - age
    promise = Promise(
        service="postgres", rpo=rpo, rto=None, streamed_until=None if streamed is None else written - streamed
    )
    verdict = "failed" if alarms else "ok"
    return Heartbeat(
        system="Shop", written=written, every=5 * _MINUTE, verdict=verdict, alarms=alarms, promises=(promise,)
    )


def _seen(beat: Heartbeat, catalog: Catalog) -> Verdict:
    repository = _repository()
    write_heartbeat(repository, beat)
    return overall(watch(repository, catalog, _NOW, 15 * _MINUTE).findings)


def test_a_fresh_heartbeat_and_a_stream_that_kept_up_are_ok_between_two_heartbeats() -> None:
    assert _seen(_beat(4 * _MINUTE, streamed=5 * _SECOND), _catalog(timedelta(hours=5))) is Verdict.OK
    assert _seen(_beat(4 * _MINUTE, streamed=2 * _MINUTE), _catalog(timedelta(hours=5))) is Verdict.FAILED


def test_silence_is_noticed_whatever_was_said_last() -> None:
    assert _seen(_beat(16 * _MINUTE, streamed=_SECOND), _catalog(_SECOND)) is Verdict.FAILED


def test_copies_that_stopped_are_noticed_although_the_daemon_beats() -> None:
    beat = _beat(_MINUTE, rpo=timedelta(hours=2))
    assert _seen(beat, _catalog(timedelta(hours=1))) is Verdict.OK
    assert _seen(beat, _catalog(timedelta(hours=3))) is Verdict.FAILED
    assert _seen(beat, Catalog(entries=())) is Verdict.FAILED


def test_an_alarm_of_its_own_is_passed_on() -> None:
    assert _seen(_beat(_MINUTE, streamed=_SECOND, alarms=("the disk is full",)), _catalog(_SECOND)) is Verdict.FAILED


def test_a_heartbeat_of_the_future_or_none_is_unknown() -> None:
    assert _seen(_beat(-6 * _MINUTE, streamed=_SECOND), _catalog(_SECOND)) is Verdict.UNKNOWN
    nothing = watch(_repository(), _catalog(_SECOND), _NOW, _MINUTE)
    assert overall(nothing.findings) is Verdict.UNKNOWN


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_heartbeat_is_never_believed(at: int, bit: int) -> None:
    repository = _repository()
    write_heartbeat(repository, _beat(_MINUTE))
    (info,) = repository.store.list("heartbeats/")
    data = bytearray(repository.store.get(info.key))
    data[at % len(data)] ^= 1 << bit
    repository.store.put(info.key, bytes(data))
    with pytest.raises(RecoupError):
        read_heartbeats(repository)


def test_the_heartbeat_of_one_system_does_not_pass_for_another_s() -> None:
    repository = _repository()
    write_heartbeat(repository, _beat(_MINUTE))
    (info,) = repository.store.list("heartbeats/")
    repository.store.put("heartbeats/0000000000000000.json", repository.store.get(info.key))
    with pytest.raises(DamageError, match="its MAC does not match"):
        read_heartbeats(repository)


def _record(said: datetime = _NOW, **facts: object) -> WorkerRecord:
    return WorkerRecord(name="stream redis", facts=facts, said=said, state="running")


def test_an_idle_stream_that_is_connected_is_complete_up_to_what_its_worker_said_last() -> None:
    idle = _record(connected=True, unsaved_since=None, queued_bytes=0, base="present")
    assert stream_of("stream", idle, _NOW).as_of == _NOW
    held = clock.to_text(_NOW - 9 * _SECOND)
    assert stream_of("stream", _record(connected=True, unsaved_since=held), _NOW).as_of == _NOW - 9 * _SECOND


def test_a_stream_that_lost_its_server_waits_and_is_complete_up_to_what_was_stored() -> None:
    stored = clock.to_text(_NOW - _MINUTE)
    lost = stream_of("stream", _record(connected=False, problem="refused", stored_until=stored), _NOW)
    assert (lost.state, lost.error, lost.as_of) == ("waiting", "refused", _NOW - _MINUTE)


def test_a_gap_matters_until_a_newer_copy_lies_behind_it() -> None:
    facts = {"gap": "the slot was lost", "gap_at": clock.to_text(_NOW - _MINUTE)}
    assert stream_of("wal", _record(**facts), _NOW - 2 * _MINUTE).gap == "the slot was lost"
    assert stream_of("wal", _record(**facts), _NOW).gap is None
    assert stream_of("wal", None, _NOW).state == "unknown"
