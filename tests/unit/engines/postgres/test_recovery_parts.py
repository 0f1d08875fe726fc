"""Parts of a recovery: what is fed and when, what is screened, what the server's words mean, instants as typed."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as some

from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.recovery_choice import WalFile
from recoup.engines.postgres.recovery_script import Reached, parse_said, recovery_settings
from recoup.engines.postgres.recovery_target import AtLsn, AtName, AtTime, AtXid, Latest, Target
from recoup.engines.postgres.recovery_verdict import judge
from recoup.engines.postgres.restore_points import RestorePointSearch
from recoup.engines.postgres.sandbox_faults import lacks_means
from recoup.engines.postgres.wal_feed import WalFeed
from recoup.engines.postgres.wal_screen import WalScreen, place_in_segment
from recoup.kernel.errors import DamageError, RefusedError, UsageError
from recoup.kernel.finding import Verdict
from recoup.recovery.instant import parse_instant

MIB = 1 << 20
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


# -- the feed ------------------------------------------------------------------------------------------------------


class Script:
    """The other side of a feed: asks for the files in ``wants`` one after the other, as the server would."""

    def __init__(self, wants: Sequence[str], last: str = "recovered") -> None:
        (inward, out), (back, saying) = os.pipe(), os.pipe()
        self.stdin: IO[bytes] = os.fdopen(out, "wb")
        self.stdout: IO[bytes] = os.fdopen(back, "rb")
        self.got: dict[str, bytes] = {}
        self.most_waiting = 0
        self._input, self._saying = os.fdopen(inward, "rb"), os.fdopen(saying, "wb", buffering=0)
        self._wants, self._last = list(wants), last
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        ready: dict[str, bytes] = {}
        taken = 0
        with self._saying, tarfile.open(fileobj=self._input, mode="r|") as tar:
            for member in tar:
                if member.name == "filling":
                    continue
                if not member.name.endswith(".ready"):
                    handle = tar.extractfile(member)
                    ready[member.name] = handle.read() if handle is not None else b""
                    continue
                if member.name == "list.ready":
                    self._say(f"want {self._wants[0]}")
                self.most_waiting = max(self.most_waiting, len(ready))
                while taken < len(self._wants) and self._wants[taken] in ready and "list" in ready:
                    self.got[self._wants[taken]] = ready.pop(self._wants[taken])
                    self._say(f"took {self._wants[taken]}")
                    taken += 1
                    if taken < len(self._wants) and self._wants[taken] not in ready:
                        self._say(f"want {self._wants[taken]}")
                if taken == len(self._wants):
                    self._say(self._last)
                    break
            while self._input.read(1 << 16):
                pass

    def _say(self, line: str) -> None:
        self._saying.write(line.encode() + b"\n")

    def join(self) -> None:
        self._thread.join(120)
        assert not self._thread.is_alive()
        for end in (self._input, self.stdout):
            end.close()


def segments(count: int) -> list[WalFile]:
    history = WalFile(name="00000002.history", segment=None, timeline=2)
    return [history, *(WalFile(name=f"{number:024X}", segment=number, timeline=1) for number in range(count))]


def content(file: WalFile) -> bytes:
    return file.name.encode() * 100


@given(some.lists(some.integers(0, 39), min_size=1, max_size=12), some.integers(1, 4))
def test_whatever_the_server_asks_for_in_whatever_order_it_gets_that_file_whole(order: list[int], run: int) -> None:
    files = segments(40)
    wants = [f"{min(first + step, 39):024X}" for first in order for step in range(run)]
    wants = [one for at, one in enumerate(wants) if at == 0 or one != wants[at - 1]]
    script = Script(wants)
    said = WalFeed(files, content, segment_bytes=16 * MIB).run(script)
    script.join()
    assert said.lines == ("recovered",)
    assert script.got == {name: name.encode() * 100 for name in wants}
    assert script.most_waiting <= 2 * 128 // 16 + 3  # however long the WAL is; with the list and the history file


def test_what_cannot_be_read_is_an_error_when_it_is_needed_and_not_before() -> None:
    files = segments(10)

    def fetch(file: WalFile) -> bytes:
        if file.segment is not None and file.segment >= 5:
            raise DamageError(f"{file.name} is damaged")
        return content(file)

    script = Script([f"{number:024X}" for number in range(5)])
    assert WalFeed(files, fetch, segment_bytes=MIB).run(script).lines == ("recovered",)
    script.join()
    script = Script([f"{number:024X}" for number in range(6)])
    with pytest.raises(DamageError, match="5 is damaged"):
        WalFeed(files, fetch, segment_bytes=MIB).run(script)
    script.join()


# -- what is looked for in WAL -------------------------------------------------------------------------------------


def record(info: int, manager: int, data: bytes) -> bytes:
    head = struct.pack("<IIQBBHI", 24 + 2 + len(data), 0, 0, info, manager, 0, 0xDEADBEEF)
    return head + bytes((255, len(data))) + data


def paged(payload: bytes, size: int = MIB) -> bytes:
    """A segment whose pages hold ``payload``, with headers of recognisable rubbish."""
    out, rest = io.BytesIO(), payload
    for at in range(0, size, 8192):
        header = 24 if at else 40
        piece, rest = rest[: 8192 - header], rest[8192 - header :]
        out.write(b"\xee" * header + piece.ljust(8192 - header, b"\0"))
    return out.getvalue()


@given(some.integers(0, 20_000))
def test_a_restore_point_is_found_wherever_its_record_lies(at: int) -> None:
    stamp = struct.pack("<q", int((NOON - datetime(2000, 1, 1, tzinfo=UTC)).total_seconds()) * 1_000_000)
    data = stamp + b"nightly".ljust(64, b"\0")
    (found,) = RestorePointSearch("nightly").look(Lsn(MIB), paged(bytes(at) + record(0x70, 0, data)))
    assert found.time == NOON
    assert MIB + place_in_segment(at) < found.lsn.value <= MIB + place_in_segment(at + 98)
    assert RestorePointSearch("night").look(Lsn(MIB), paged(bytes(at) + record(0x70, 0, data))) == []


@given(some.integers(0, 120))
def test_a_restore_point_across_two_segments_is_found(cut: int) -> None:
    data = bytes(8) + b"nightly".ljust(64, b"\0")
    room = MIB - 128 * 24 - 16
    whole = bytes(room - cut) + record(0x70, 0, data)
    search = RestorePointSearch("nightly")
    found = [*search.look(Lsn(MIB), paged(whole[:room])), *search.look(Lsn(2 * MIB), paged(whole[room:]))]
    assert len(found) == 1


@given(some.integers(0, 20_000), some.booleans())
def test_a_tablespace_in_the_wal_is_refused_wherever_its_record_lies(at: int, across: bool) -> None:
    data = struct.pack("<I", 16_400) + b"/srv/tablespace\0"
    room = MIB - 128 * 24 - 16
    payload = bytes((room - at % 60) if across else at) + record(0x00, 5, data)
    screen = WalScreen(MIB, begin=Lsn(0))
    looks = [(4, paged(payload[room:])), (3, paged(payload[:room]))]  # in any order
    with pytest.raises(RefusedError, match="makes a tablespace in /srv/tablespace"):
        [screen.look(*one) for one in looks]


def test_a_tablespace_before_or_behind_what_is_replayed_is_nobodys_business() -> None:
    data = struct.pack("<I", 16_400) + b"/srv/tablespace\0"
    segment = paged(bytes(5000) + record(0x00, 5, data))
    WalScreen(MIB, begin=Lsn(3 * MIB + 6000)).look(3, segment)
    WalScreen(MIB, begin=Lsn(0), until=Lsn(3 * MIB + 5000)).look(3, segment)
    WalScreen(MIB, begin=Lsn(0)).look(3, paged(bytes(100) + record(0x10, 5, struct.pack("<I", 1))))  # DROP TABLESPACE
    with pytest.raises(RefusedError):
        WalScreen(MIB, begin=Lsn(0)).look(3, segment)


# -- what the server said ------------------------------------------------------------------------------------------


def reached(
    lsn: int | None = 5 * MIB, *, commit: datetime | None = NOON, stopped: str | None = "recovery stopping x"
) -> Reached:
    return Reached(lsn=None if lsn is None else Lsn(lsn), last_commit=commit, timeline=2, stopped=stopped, asked=True)


LATER = NOON + timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("target", "where", "verdict"),
    [
        (AtTime(time=NOON), reached(), Verdict.OK),
        (AtTime(time=NOON), reached(commit=LATER), Verdict.FAILED),
        (AtTime(time=NOON, before=True), reached(), Verdict.FAILED),
        (AtTime(time=LATER, before=True), reached(), Verdict.OK),
        (AtTime(time=NOON), reached(commit=None), Verdict.OK),
        (AtTime(time=NOON), reached(None), Verdict.UNKNOWN),
        (AtTime(time=NOON), reached(9 * MIB + 100, stopped=None), Verdict.OK),
        (AtTime(time=NOON), reached(8 * MIB + 100, stopped=None), Verdict.FAILED),  # the WAL broke off before its end
        (Latest(), reached(10 * MIB, stopped=None), Verdict.OK),
        (Latest(), reached(4 * MIB, stopped=None), Verdict.FAILED),
        (AtLsn(lsn=Lsn(5 * MIB)), reached(), Verdict.OK),
        (AtLsn(lsn=Lsn(5 * MIB + 24)), reached(), Verdict.OK),  # behind a page header
        (AtLsn(lsn=Lsn(6 * MIB)), reached(), Verdict.FAILED),
        (AtLsn(lsn=Lsn(5 * MIB), before=True), reached(), Verdict.OK),
        (AtLsn(lsn=Lsn(4 * MIB), before=True), reached(), Verdict.FAILED),
        (AtXid(xid=73), reached(stopped="recovery stopping after commit of transaction 73, time x"), Verdict.OK),
        (AtXid(xid=7), reached(stopped="recovery stopping after commit of transaction 73, time x"), Verdict.FAILED),
        (AtName(name="a"), reached(stopped='recovery stopping at restore point "a", time x'), Verdict.OK),
        (AtName(name="a"), reached(stopped=None), Verdict.FAILED),
    ],
)  # fmt: skip
def test_a_target_is_compared_with_what_was_reached(target: Target, where: Reached, verdict: Verdict) -> None:
    finding = judge(target, where, subject="postgres", wal_end=Lsn(10 * MIB), segment_bytes=MIB)
    assert finding.verdict is verdict
    assert str(target) in finding.detail


def test_without_an_answer_by_sql_the_log_is_read() -> None:
    log = (
        "want 000000010000000000000001", "log LOG:  redo done at 0/5000060 system usage: CPU: user: 0.00 s",
        "log LOG:  last completed transaction was at log time 2026-11-23 12:00:00.5+00",
        "log LOG:  selected new timeline ID: 4", "recovered", "clean",
    )  # fmt: skip
    said = parse_said(log)
    assert said.finished
    found = said.reached()
    assert (found.lsn, found.timeline, found.stopped, found.asked) == (Lsn.parse("0/5000060"), 4, None, False)
    assert found.last_commit == NOON + timedelta(seconds=0.5)
    asked = parse_said([*log[:-2], "reached 0/5000098 1795780800.25 on 00000004 f", *log[-2:]]).reached()
    assert (asked.lsn, asked.asked, asked.last_commit) == (
        Lsn.parse("0/5000098"),
        True,
        NOON + timedelta(hours=0.0) + (datetime.fromtimestamp(1795780800.25, UTC) - NOON),
    )
    empty = parse_said([*log[:-2], "reached 0/5000098 on 00000004 f", *log[-2:]]).reached()
    assert (empty.lsn, empty.last_commit) == (Lsn.parse("0/5000098"), None)


def test_a_full_disk_and_a_lost_feed_are_named_even_when_the_log_says_nothing() -> None:
    assert "No space left" in parse_said(["free 12", "log LOG:  database system is shut down", "ended 1"]).fault
    killed = ["free 9000000", 'log LOG:  restored log file "000000010000000000000007" from archive', "ended 137"]
    assert lacks_means(parse_said(killed).fault), "one that is killed cannot say so"
    assert not lacks_means(parse_said([*killed[:-1], "ended 134"]).fault)
    assert "cannot write" in parse_said(["lost: cannot write into /data as user 70"]).fault
    assert not parse_said(["recovered"]).finished


def test_the_start_that_recovers_reaches_nothing_outside() -> None:
    settings = dict(
        one.split("=", 1)
        for one in recovery_settings(
            Latest(), 3, {"major": 15, "settings": {"max_connections": "300"}}, look_ahead=False
        )
    )
    for name in ("listen_addresses", "shared_preload_libraries", "primary_conninfo", "archive_cleanup_command",
                 "recovery_end_command", "recovery_target_time"):  # fmt: skip
        assert settings[name] == ""
    assert (settings["archive_mode"], settings["recovery_target_timeline"], settings["max_connections"]) == (
        "off",
        "3",
        "300",
    )
    assert settings["recovery_prefetch"] == "off"
    assert not any(
        one.startswith("recovery_prefetch") for one in recovery_settings(Latest(), 3, {"major": 14}, look_ahead=False)
    )


# -- instants as people write them ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-11-23 12:00", NOON - timedelta(hours=1)),
        ("2026-11-23T12:00:00Z", NOON),
        ("2026-11-23 12:00:00.000001+00:00", LATER),
        ("2026-07-01 12:00", datetime(2026, 7, 1, 10, tzinfo=UTC)),
    ],
)
def test_an_instant_without_an_offset_is_meant_in_the_zone_of_the_plan(text: str, wanted: datetime) -> None:
    assert parse_instant(text, "Europe/Berlin") == wanted


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("soon", "is no instant"),
        ("2026-11-23", "is a day"),
        ("2026-10-25 02:30", "twice"),
        ("2026-03-29 02:30", "never"),
    ],
)
def test_an_instant_that_is_none_or_two_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_instant(text, "Europe/Berlin")
