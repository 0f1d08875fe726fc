"""The journal of a run: everything said and done, a line each, on the disk before and after each act.

A line is a digest, a space, one JSON object and a line feed. The digest is the SHA-256 of the digest of the line before
(of nothing, for the first) and of the object, so that no line can be changed, taken out or put in between unseen; an
authentic copy elsewhere shows whether lines are missing at the end. It is only ever appended to. A power cut can leave
the last line unfinished: that one never happened, and is cut off when the journal is opened again. Anything else that
is wrong is damage, and is named.

Fields of the object: ``n`` (1, 2, 3 …), ``id`` (unique; whoever merges copies of a journal drops repetitions by it),
``at`` (wall clock, UTC), ``clock`` (seconds by a clock that nobody sets; comparable while ``boot`` is the same),
``host``, ``who``, ``event``, ``data``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from recoup.kernel import clock, files
from recoup.kernel.errors import BusyError, DamageError, RecoupError

SCHEMA: Final = 1
_DIGEST: Final = re.compile(rb"[0-9a-f]{64}")
#: A line is words about a step, not its output.
_LONGEST_LINE: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line. ``digest`` is what it begins with, and what the next one is chained to."""

    number: int
    id: str
    at: datetime
    clock: float
    boot: str
    host: str
    who: str
    event: str
    data: Mapping[str, Any] = field(default_factory=dict)
    digest: str


def parse_journal(data: bytes, where: str = "the journal") -> tuple[tuple[Line, ...], int]:
    """The lines of a journal, and how many of its bytes they are; the rest is a line that was not finished.

    Raise ``DamageError`` naming the line when anything but the end of the last one is not as it was written.
    """
    lines: list[Line] = []
    at, before = 0, ""
    while (end := data.find(b"\n", at)) >= 0:
        raw = data[at : end + 1]
        line = _line(raw, len(lines) + 1, before)
        if line is None:
            raise DamageError(
                f"line {len(lines) + 1} of {where} is not the line that was written",
                hint="Another repository may hold a whole copy of this journal. Do not go on from this one.",
            )
        lines.append(line)
        at, before = end + 1, line.digest
    return tuple(lines), at


def _line(raw: bytes, number: int, before: str) -> Line | None:
    digest, space, body = raw[:64], raw[64:65], raw[65:]
    if not _DIGEST.fullmatch(digest) or space != b" " or _chained(before, body) != digest.decode():
        return None
    try:
        said = json.loads(body)
        line = Line(
            number=int(said["n"]),
            id=str(said["id"]),
            at=clock.from_text(said["at"]),
            clock=float(said["clock"]),
            boot=str(said["boot"]),
            host=str(said["host"]),
            who=str(said["who"]),
            event=str(said["event"]),
            data=said["data"],
            digest=digest.decode(),
        )
        in_place = line.number == number and isinstance(said["data"], dict)
    except (ValueError, KeyError, TypeError):
        return None
    return line if in_place else None


def _chained(before: str, body: bytes) -> str:
    return hashlib.sha256(before.encode() + body).hexdigest()


class Journal:
    """A journal that is being written. One process at a time has it; the kernel sees to that."""

    def __init__(self, path: Path, *, who: str, host: str, boot: str) -> None:
        """Open or begin it. ``boot`` names the present start of this machine, as the kernel does.

        Raise ``BusyError`` when another process writes it, ``DamageError`` when it was changed, ``RecoupError`` when it
        cannot be written.
        """
        self.path = path
        self.who, self._host, self._boot = who, host, boot
        try:
            new = not path.exists()
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as failure:
            raise _cannot_write(path, failure) from failure
        try:
            self._lock()
            if new:
                files.sync_folder(path.parent)
            data = path.read_bytes()
            lines, whole = parse_journal(data, str(path))
            if whole < len(data):
                os.ftruncate(self._handle, whole)
                os.fsync(self._handle)
        except OSError as failure:
            os.close(self._handle)
            raise _cannot_write(path, failure) from failure
        except RecoupError:
            os.close(self._handle)
            raise
        self._lines = list(lines)
        self._raw = data[:whole].splitlines(keepends=True)
        self._broken: RecoupError | None = None

    def _lock(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"another process carries out the run of {self.path}",
                hint="Look at it with `recoup recover --show`; it ends with its process.",
            ) from None

    @property
    def lines(self) -> Sequence[Line]:
        """Everything so far."""
        return tuple(self._lines)

    def append(self, event: str, **data: Any) -> Line:
        """Write a line. Returns once it is on the disk.

        Raise ``RecoupError`` when it is not; then nothing more may be done, and every later call raises the same.
        """
        if self._broken is not None:
            raise self._broken
        before = self._lines[-1].digest if self._lines else ""
        said = {
            "n": len(self._lines) + 1,
            "id": secrets.token_hex(8),
            "at": clock.to_text(clock.now()),
            "clock": round(clock.monotonic(), 6),
            "boot": self._boot,
            "host": self._host,
            "who": self.who,
            "event": event,
            "data": data,
        }
        body = json.dumps(said, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
        raw = f"{_chained(before, body)} ".encode() + body
        if len(raw) > _LONGEST_LINE:
            raise ValueError(f"a line of {len(raw)} bytes")
        line = _line(raw, len(self._lines) + 1, before)
        assert line is not None
        # Whatever comes in between, also Ctrl-C: what reached the disk is unknown then until it is opened again.
        self._broken = RecoupError(
            f"a line of the journal {self.path} was interrupted while it was written",
            hint="The same command goes on from what is on the disk.",
        )
        try:
            written = os.write(self._handle, raw)
            while written < len(raw):  # a disk that is nearly full takes a part first, and refuses the rest
                written += os.write(self._handle, raw[written:])
            os.fsync(self._handle)
        except OSError as failure:
            self._broken = _cannot_write(self.path, failure)
            raise self._broken from failure
        self._raw.append(raw)
        self._lines.append(line)
        self._broken = None
        return line

    def raw(self, after: int) -> tuple[bytes, int]:
        """The lines after the first ``after``, as they are on the disk, and how many there are in all.

        Another thread may call it.
        """
        last = len(self._lines)
        return b"".join(self._raw[after:last]), last

    def close(self) -> None:
        """Let it go."""
        os.close(self._handle)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _cannot_write(path: Path, failure: OSError) -> RecoupError:
    return RecoupError(
        f"the journal {path} cannot be written: {failure.strerror or failure}",
        hint="Nothing is done that is not journaled first. Make room, or correct the rights; the same command goes on.",
    )
