"""Journals of recoveries in a repository: their lines, as they were written, in small objects that never change.

Each object holds some lines in a row, compressed and encrypted; its name says which, is authenticated, and carries the
generation of the lease under which it was written (``run_lease.py``). Who lost the lease may still be writing for a
moment: where two wrote the same line, that of the later generation counts, and what the earlier one wrote after it
does not. This knows how lines are kept, not what they say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from recoup.kernel import clock
from recoup.kernel.errors import DamageError
from recoup.repository import layout
from recoup.repository.named_objects import (
    ENDING,
    fetch,
    mac_text,
    open_bytes,
    require_authentic,
    seal_bytes,
    stamp_text,
    stored_limit,
)
from recoup.repository.repository import Repository

_PURPOSE: Final = "run-journal"
_LEVEL: Final = 3
#: The most that one object may hold, plain.
_LIMIT_BYTES: Final = 16 << 20
#: So many objects are asked for together.
_AT_ONCE: Final = 8
_NAME: Final = re.compile(rf"(\d{{8}})-(\d{{6}})-(\d{{6}}){ENDING}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    generation: int
    first: int
    last: int
    key: str
    mac: str


def put_lines(repository: Repository, folder: str, generation: int, first: int, data: bytes) -> None:
    """Store lines, the first of which is number ``first``, and read them back. The same again is fine.

    ``folder`` is from ``layout.run_journal``. Raise ``DamageError`` when they do not read back as they were written,
    ``StorageError``.
    """
    last = first + data.count(b"\n") - 1
    stored = seal_bytes(repository.key, data, level=_LEVEL)
    bound = layout.run_lines_bound(folder, generation, first, last, stamp_text(clock.now()))
    key = layout.run_lines_key(bound, mac_text(repository.key, _PURPOSE, bound, stored))
    repository.store.put(key, stored)
    if repository.store.get(key, limit_bytes=stored_limit(_LIMIT_BYTES)) != stored:
        raise DamageError(f"{key} in {repository} does not read back as it was written")


def read_journal(repository: Repository, folder: str) -> bytes:
    """The lines of a run's journal, as they were written; nothing when there are none. ``folder`` is its place.

    Raise ``DamageError`` when one of them is missing or not authentic, ``WrongKeyError``, ``StorageError``.
    """
    pieces = []
    for info in repository.store.list(folder):
        match = _NAME.fullmatch(info.key[len(folder) :])
        if match is not None:
            generation, first, last = (int(match[number]) for number in (1, 2, 3))
            pieces.append(_Piece(generation=generation, first=first, last=last, key=info.key, mac=match[5]))
    # Whoever goes on with a run writes all of its lines anew: what is older need not even be readable.
    whole = max((one.generation for one in pieces if one.first == 1), default=0)
    pieces = [one for one in pieces if one.generation >= whole]
    pieces.sort(key=lambda one: (one.generation, one.first, one.last))
    last = 0
    for piece in pieces:
        if piece.first > last + 1:
            raise DamageError(f"line {last + 1} of the journal {folder} is missing in {repository}")
        last = piece.last
    lines: list[bytes] = []
    # A line or two each, dozens of them: one after the other they would hold up every recovery that begins.
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        for piece, read in zip(pieces, pool.map(partial(_read, repository), pieces), strict=True):
            lines[piece.first - 1 :] = read
    return b"".join(lines)


def _read(repository: Repository, piece: _Piece) -> list[bytes]:
    stored = fetch(repository, piece.key, limit_bytes=stored_limit(_LIMIT_BYTES))
    require_authentic(repository.key, _PURPOSE, piece.key, piece.mac, stored, f" in {repository}")
    lines = open_bytes(repository.key, piece.key, stored).splitlines(keepends=True)
    if len(lines) != piece.last - piece.first + 1:
        raise DamageError(f"{piece.key} in {repository} is authentic but is not what Recoup writes")
    return lines


def runs_in(repository: Repository, system: str | None) -> Mapping[str, str]:
    """The runs of a system, or of all, whose journals are there: their places by their ids, the oldest first.

    Raise ``StorageError``.
    """
    keys = (info.key for info in repository.store.list(layout.RUNS if system is None else layout.runs_folder(system)))
    places = {run: key.rpartition("/")[0] + "/" for key in keys if (run := layout.run_of(key)) is not None}
    return dict(sorted(places.items()))
