"""The journal of a run: what is in it was on the disk before anything was done, and nobody can change it unseen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.kernel.errors import BusyError, DamageError, RecoupError
from recoup.recovery.journal import Journal, Line, parse_journal


def open_journal(folder: Path, name: str = "journal") -> Journal:
    return Journal(folder / name, who="ops", host="alpha", boot="first")


def events(lines: tuple[Line, ...]) -> list[str]:
    return [line.event for line in lines]


def written(folder: Path, *several: str) -> bytes:
    with open_journal(folder) as journal:
        for event in several:
            journal.append(event, step="x", detail=event * 3)
    return (folder / "journal").read_bytes()


def test_a_journal_that_is_opened_again_goes_on_where_it_ended(tmp_path: Path) -> None:
    written(tmp_path, "one", "two")
    with open_journal(tmp_path) as again:
        again.append("three")
        assert events(tuple(again.lines)) == ["one", "two", "three"]
    lines, size = parse_journal((tmp_path / "journal").read_bytes())
    assert events(lines) == ["one", "two", "three"]
    assert size == (tmp_path / "journal").stat().st_size
    assert [line.number for line in lines] == [1, 2, 3]
    assert len({line.id for line in lines}) == 3


def test_every_line_is_on_the_disk_when_append_returns(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        for event in ("one", "two"):
            journal.append(event)
            assert events(parse_journal((tmp_path / "journal").read_bytes())[0])[-1] == event


def test_a_line_that_a_power_cut_left_unfinished_never_happened_and_is_cut_off(tmp_path: Path) -> None:
    data = written(tmp_path, "one", "two")
    second = data.index(b"\n") + 1
    for cut in range(second, len(data)):  # every length that the last line can have been left with
        (tmp_path / "journal").write_bytes(data[:cut])
        with open_journal(tmp_path) as journal:
            assert events(tuple(journal.lines)) == ["one"]
            journal.append("instead")
        assert events(parse_journal((tmp_path / "journal").read_bytes())[0]) == ["one", "instead"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(tmp_path_factory.mktemp("journal"), "one", "two", "three", "four")


def seen_in(changed: bytes) -> list[str] | None:
    """The events of a journal; None when it is damaged, and the damage was named."""
    try:
        return events(parse_journal(changed)[0])
    except DamageError as damage:
        return None if "line " in damage.message else [damage.message]


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_a_changed_bit_is_damage_or_takes_the_last_line_away(whole: bytes, place: float, bit: int) -> None:
    at = int(place * len(whole))
    changed = whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :]
    # Without its line feed the last line is an unfinished one: then that one is not there.
    assert seen_in(changed) in (None, ["one", "two", "three"])
    assert (seen_in(changed) is None) == (at < len(whole) - 1)


@pytest.mark.parametrize("first", [0, 1, 2])
def test_no_line_can_be_removed_moved_or_repeated_unseen(whole: bytes, first: int) -> None:
    lines = whole.splitlines(keepends=True)
    moved = [*lines[:first], lines[first + 1], lines[first], *lines[first + 2 :]]
    for changed in ([*lines[:first], *lines[first + 1 :]], moved, [*lines, lines[first]], [*lines, lines[-1]]):
        assert seen_in(b"".join(changed)) is None


def test_two_processes_cannot_write_one_journal(tmp_path: Path) -> None:
    with open_journal(tmp_path), pytest.raises(BusyError, match="another process"):
        open_journal(tmp_path)
    open_journal(tmp_path).close()


FULL = """
import resource, signal, sys
from pathlib import Path
from recoup.kernel.errors import RecoupError
from recoup.recovery.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path(sys.argv[1]), who="ops", host="alpha", boot="first")
journal.append("one")
size = Path(sys.argv[1]).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))
for _ in range(2):
    try:
        journal.append("two")
    except RecoupError as failure:
        print(failure.message)
"""


def test_what_cannot_be_written_down_is_not_done_and_leaves_a_whole_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    said = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True).stdout
    assert said.count("cannot be written") == 2, "once it failed, nothing more is appended by this process"
    assert path.read_bytes()[-1:] != b"\n", "a part of the line reached the disk"
    with open_journal(tmp_path) as journal:
        assert events(tuple(journal.lines)) == ["one"]


@pytest.mark.parametrize("when", ["write", "fsync"])
def test_a_line_that_ctrl_c_came_into_leaves_a_whole_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    with open_journal(tmp_path) as journal:
        journal.append("one")

        def interrupted(handle: int, data: bytes = b"") -> int:
            if when == "write":
                real_write(handle, data[:20])
            raise KeyboardInterrupt

        real_write = os.write
        with monkeypatch.context() as patched:
            patched.setattr(os, when, interrupted)
            with pytest.raises(KeyboardInterrupt):
                journal.append("two")
        with pytest.raises(RecoupError, match="was interrupted while it was written"):
            journal.append("three")
    with open_journal(tmp_path) as again:
        assert events(tuple(again.lines)) == (["one"] if when == "write" else ["one", "two"])
        again.append("four")
    parse_journal((tmp_path / "journal").read_bytes())


@pytest.mark.parametrize("text", [b"{}\n", b"[]\n", b"\n", b"\xff\xfe\n", b'{"n":1}\n', b"0" * 64 + b" {}\n"])
def test_a_file_that_is_no_journal_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "journal").write_bytes(text)
    with pytest.raises(DamageError, match="line 1"):
        open_journal(tmp_path)
