"""The command log: whatever the pieces it comes in and wherever it is cut, it says the same."""

from __future__ import annotations

import contextlib
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.engines.redis import commands
from recoup.engines.redis.command_log import LogSegment, LogWriter, absolute, read_segment
from recoup.engines.redis.commands import CommandReader, CommandTooLongError, arguments, encode
from recoup.engines.redis.replay import CommandCut
from recoup.kernel.errors import DamageError, EngineError

LINE = "a" * 40
PING, GETACK = encode(b"PING"), encode(b"REPLCONF", b"GETACK", b"*")
SELECT = encode(b"SELECT", b"0")

_words = st.binary(max_size=40) | st.sampled_from([b"#TS:1\r\n", b"\r\n", b"*1\r\n", b"MULTI"])
_sets = st.builds(lambda key, value: encode(b"SET", key, value), _words, _words)
_transactions = st.lists(_sets, max_size=3).map(lambda inner: [encode(b"MULTI"), *inner, encode(b"EXEC")])
_streams = st.lists(
    _sets.map(lambda one: [one]) | _transactions | st.sampled_from([[PING], [GETACK], [encode(b"SELECT", b"3")]]),
    max_size=12,
).map(lambda parts: [SELECT, *(one for part in parts for one in part)])


def _segments(stream: list[bytes], sizes: list[int], cuts: set[int]) -> list[LogSegment]:
    """The stream given to a writer in pieces of those sizes, a second apart, cut after some of the pieces."""
    writer, data, segments, at = LogWriter(LINE, 1000), b"".join(stream), [], 0
    step = 0
    while at < len(data):
        size = sizes[step % len(sizes)]
        writer.feed(data[at : at + size], 1_000_000 + step * 1000)
        at += size
        if step in cuts and (segment := writer.cut()) is not None:
            segments.append(segment)
        step += 1
    if (segment := writer.cut()) is not None:
        segments.append(segment)
    return segments


def _selects(command: bytes) -> bool:
    return command.startswith(SELECT[:14])


def _kept(stream: list[bytes]) -> list[bytes]:
    return [one for one in stream if one not in (PING, GETACK) and not _selects(one)]


@given(_streams, st.lists(st.integers(1, 60), min_size=1, max_size=5), st.sets(st.integers(0, 30)))
def test_a_log_holds_every_command_once_at_its_offset_whatever_the_pieces_and_the_cuts(
    stream: list[bytes], sizes: list[int], cuts: set[int]
) -> None:
    segments = _segments(stream, sizes, cuts)
    places = dict(zip(accumulate((len(one) for one in stream), initial=1000), stream, strict=False))
    found = [command for one in segments for command in read_segment([one.data]) if command.offset >= 0]
    # Segments begin with the database that is selected, so that each can be read alone.
    assert [one.data for one in found if one.name != b"SELECT"] == _kept(stream)
    inside = False
    for command in found:
        if not inside and command.name != b"SELECT":
            assert places[command.offset].startswith(command.data[:8])
        inside = command.name == b"MULTI" or (inside and command.name != b"EXEC")
    assert [one.start for one in segments[1:]] == [one.end for one in segments[:-1]]
    assert segments[0].start == 1000
    assert segments[-1].end == 1000 + sum(map(len, stream))
    for one in segments:
        names = [command.name for command in read_segment([one.data])]
        assert names.count(b"MULTI") == names.count(b"EXEC")


@given(_streams, st.lists(st.integers(1, 60), min_size=1, max_size=5), st.sets(st.integers(0, 30)), st.data())
def test_a_replay_from_any_copy_to_any_time_is_the_commands_between_and_tears_no_transaction(
    stream: list[bytes], sizes: list[int], cuts: set[int], data: st.DataObject
) -> None:
    segments = _segments(stream, sizes, cuts)
    times = sorted({command.at_ms for one in segments for command in read_segment([one.data])})
    until = data.draw(st.sampled_from(times)) if times else 0
    cut = CommandCut(after=1000 + len(SELECT) if data.draw(st.booleans()) else 1000, until_ms=until)
    # A piece that is there twice, as after a crash, changes nothing.
    twice = [*segments, *segments[-1:]]
    said = [one for part in twice if not cut.ended for one in cut.pass_on(read_segment([part.data]), part.end)]
    whole = [command for part in segments for command in read_segment([part.data]) if command.name != b"SELECT"]
    assert [one for one in said if not _selects(one)] == [one.data for one in whole if 0 <= one.at_ms <= until]
    assert said.count(encode(b"MULTI")) == said.count(encode(b"EXEC"))


@given(st.lists(st.lists(_words, min_size=1, max_size=5), max_size=8), st.lists(st.integers(1, 50), min_size=1))
def test_commands_come_out_of_any_pieces_as_they_went_in(stream: list[list[bytes]], sizes: list[int]) -> None:
    whole = [encode(*words) for words in stream]
    data, reader, found, at, step = b"".join(whole), CommandReader(), [], 0, 0
    while at < len(data):
        size = sizes[step % len(sizes)]
        found += list(reader.feed(data[at : at + size]))
        at, step = at + size, step + 1
    assert [command for _, command in found] == whole
    assert [arguments(command) for _, command in found] == stream
    assert reader.unfinished_bytes == 0


@given(st.binary(max_size=200))
def test_any_bytes_are_commands_or_damage(data: bytes) -> None:
    for act in (lambda: list(CommandReader().feed(data)), lambda: list(read_segment([data]))):
        with contextlib.suppress(DamageError):
            act()


def test_a_time_to_live_becomes_an_instant_as_the_server_writes_it_into_its_own_log() -> None:
    def said(*words: bytes) -> bytes:
        return absolute(words[0].upper(), encode(*words), 5000)

    at = encode(b"PEXPIREAT", b"k", b"105000")
    assert said(b"EXPIRE", b"k", b"100") == said(b"pexpire", b"k", b"100000") == at
    assert said(b"SETEX", b"k", b"100", b"v") == encode(b"SET", b"k", b"v") + at
    assert said(b"SET", b"k", b"v", b"NX", b"ex", b"100") == encode(b"SET", b"k", b"v") + at
    assert said(b"SET", b"k", b"EX", b"GET") == encode(b"SET", b"k", b"EX", b"GET")
    assert said(b"GETEX", b"k", b"PX", b"100000") == at
    assert said(b"SET", b"k", b"v", b"PXAT", b"7") == encode(b"SET", b"k", b"v", b"PXAT", b"7")
    assert said(b"RESTORE", b"k", b"100", b"x") == encode(b"RESTORE", b"k", b"5100", b"x", b"ABSTTL")
    assert said(b"RESTORE", b"k", b"0", b"x") == encode(b"RESTORE", b"k", b"0", b"x")


def test_a_request_for_an_acknowledgement_is_answered_with_the_offset_behind_it() -> None:
    asked: list[int] = []
    LogWriter(LINE, 10, on_request=asked.append).feed(PING + GETACK, 1)
    assert asked == [10 + len(PING) + len(GETACK)]


def test_a_stream_of_nothing_but_pings_gives_a_segment_that_says_so() -> None:
    writer = LogWriter(LINE, 10)
    assert writer.cut() is None
    writer.feed(PING, 4321)
    segment = writer.cut()
    assert segment is not None
    assert (segment.commands, segment.stamp_ms, segment.end) == (0, 4321, 10 + len(PING))
    assert list(read_segment([segment.data])) == []


def test_times_never_go_back_when_the_servers_clock_does() -> None:
    writer = LogWriter(LINE, 0)
    for at in (5000, 3000, 5001):
        writer.feed(SELECT + encode(b"SET", b"k", b"v"), at)
    segment = writer.cut()
    assert segment is not None
    assert [one.at_ms for one in read_segment([segment.data])] == [5000] * 4 + [5001] * 2


def test_what_cannot_be_held_or_replayed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "COMMAND_LIMIT", 1000)
    with pytest.raises(CommandTooLongError):
        LogWriter(LINE, 0).feed(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5000\r\n", 1)
    with pytest.raises(EngineError, match="by its digest"):
        LogWriter(LINE, 0).feed(encode(b"EVALSHA", b"abc", b"0"), 1)
    with pytest.raises(DamageError, match="which database"):
        list(
            CommandCut(after=0, until_ms=9).pass_on(read_segment([b"#RECOUP:0 1\r\n" + encode(b"SET", b"k", b"v")]), 9)
        )
