"""The sign that a base backup was stopped, in tars as servers send them, however they are cut into pieces."""

from __future__ import annotations

import io
import tarfile
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.engines.postgres.base_stopped import StopSign

_WAL = "pg_wal/000000010000000000000002"
_MIB = 1 << 20
_BEGIN = datetime(2026, 11, 23, tzinfo=UTC)


def _base_tar(*, source: str = "primary", data_bytes: int = 3000, wal: bool = True) -> tuple[bytes, int]:
    """A tar as of a server, and where the header of its first file of WAL ends."""
    label = f"START WAL LOCATION: 0/2000028 (file {_WAL[7:]})\nBACKUP METHOD: streamed\nBACKUP FROM: {source}\n"
    files = {"backup_label": label.encode(), "base/1/pg_wal": b"pg_wal/" * 99, "base/1/1259": bytes(data_bytes)}
    out, sign = io.BytesIO(), 0
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for folder in ("pg_wal", "./pg_wal/archive_status", "pg_wal/summaries"):
            info = tarfile.TarInfo(folder)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
        after = {"global/pg_control": bytes(8192)}
        after |= {_WAL: bytes(5000), f"pg_wal/archive_status/{_WAL[7:]}.done": b""} if wal else {}
        for name, data in (files | after).items():
            if name == _WAL:
                sign = out.tell() + 512
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return _label_first(out.getvalue()), sign


def _label_first(tar: bytes) -> bytes:
    """The label before the folders, as servers send it."""
    folders = 3 * 512
    return tar[folders : folders + 1024] + tar[:folders] + tar[folders + 1024 :]


def _told_at(tar: bytes, cuts: list[int]) -> list[int]:
    """How many bytes had been seen each time that the sign was told; beyond the tar when that was at its end."""
    told: list[int] = []
    seen = 0
    sign = StopSign(lambda _: told.append(seen))
    at = [*sorted({0, *(one % len(tar) for one in cuts)}), len(tar)]
    for begin, end in pairwise(at):
        seen = end
        sign.see(memoryview(tar)[begin:end])
    seen = len(tar) + 1
    sign.end()
    sign.end()
    return told


@given(st.lists(st.integers(min_value=1, max_value=1 << 20), max_size=40))
def test_the_first_file_of_wal_is_the_sign_whatever_the_pieces(cuts: list[int]) -> None:
    tar, header_end = _base_tar()
    at = [*sorted({0, *(one % len(tar) for one in cuts)}), len(tar)]
    assert _told_at(tar, cuts) == [next(one for one in at if one >= header_end)]


@given(st.lists(st.integers(min_value=1, max_value=1 << 20), max_size=40))
def test_of_a_standby_and_without_wal_the_end_is_the_sign(cuts: list[int]) -> None:
    for tar in (_base_tar(source="standby")[0], _base_tar(wal=False)[0], b"no tar at all, " * 99):
        assert _told_at(tar, cuts) == [len(tar) + 1]


@pytest.mark.parametrize("piece_bytes", [8191, 32 << 10, 256 << 10])
@pytest.mark.parametrize("data_mib", [0, 15, 40])
def test_the_earliest_time_is_that_of_what_had_come_when_the_sign_cannot_have_been_sent(
    piece_bytes: int, data_mib: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar, header_end = _base_tar(data_bytes=data_mib * _MIB)
    come = 0  # and the time, in microseconds
    now = SimpleNamespace(now=lambda: _BEGIN + timedelta(microseconds=come))
    monkeypatch.setattr("recoup.engines.postgres.base_stopped.clock", now)
    told: list[int] = []
    sign = StopSign(lambda earliest: told.append((earliest - _BEGIN) // timedelta(microseconds=1)))
    for begin in range(0, len(tar), piece_bytes):
        come = min(begin + piece_bytes, len(tar))
        sign.see(memoryview(tar)[begin:come])
    (earliest,) = told
    unsent = header_end - 512 - 16 * _MIB
    assert earliest == 0 or earliest <= unsent
    assert earliest > unsent - 4 * _MIB, "not much earlier either"
