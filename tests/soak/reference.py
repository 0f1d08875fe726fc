"""What was committed when, by the servers' own word: the log that restored states are compared with.

PostgreSQL's word is its logical decoding (``pgoutput``, protocol version 1: PostgreSQL documentation, "Logical
Replication Message Formats"): every commit with the position of its record, its time and its rows, in the order of WAL.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.lsn import Lsn

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
#: Backends take the time of a commit a moment before its place in WAL is decided, so two may be in another order.
RESOLUTION = timedelta(milliseconds=20)
_CHANGES = (
    "SELECT data FROM pg_logical_slot_get_binary_changes"
    "('soak', NULL, 20000, 'proto_version', '1', 'publication_names', 'soak')"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One row of ``moves``: so much was added to an account."""

    id: int
    account: int
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One transaction. ``begin`` and ``end`` are those of its commit record."""

    begin: Lsn
    end: Lsn
    time: datetime
    moves: tuple[Move, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """What a database holds: the ids of all moves, and the balance of every account that was ever moved."""

    moves: frozenset[int]
    balances: dict[int, int]


SCHEMA = """
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL);
INSERT INTO accounts SELECT g, 0 FROM generate_series(0, 199) g;
CREATE TABLE moves (id bigint PRIMARY KEY, account int NOT NULL, amount bigint NOT NULL, filling text NOT NULL);
CREATE PUBLICATION soak FOR TABLE moves;
"""


@dataclass(slots=True, kw_only=True)
class Reference:
    """Every commit of the load, in the order of WAL."""

    server: PostgresServer
    database: str
    commits: list[Commit] = field(default_factory=list)

    def begin(self) -> None:
        """Make the tables, and begin to keep the log."""
        self.server.execute(SCHEMA, self.database)
        self.server.execute("SELECT pg_create_logical_replication_slot('soak', 'pgoutput')", self.database)

    def take(self) -> None:
        """Take what has come since. After a crash the server may repeat itself."""
        while True:
            with self.server.connect(self.database) as connection:
                messages = [bytes(data) for (data,) in connection.execute(_CHANGES, binary=True).fetchall()]
            if not messages:
                return
            moves: list[Move] = []
            for message in messages:
                if message[:1] == b"I":
                    moves.append(_move(message))
                elif message[:1] == b"C":
                    _, begin, end, stamp = struct.unpack_from(">BQQq", message, 1)
                    if not self.commits or Lsn(begin) > self.commits[-1].begin:
                        time = _EPOCH + timedelta(microseconds=stamp)
                        self.commits.append(Commit(begin=Lsn(begin), end=Lsn(end), time=time, moves=tuple(moves)))
                    moves = []

    def after(self, count: int) -> Bank:
        """The state after the first ``count`` commits."""
        balances: Counter[int] = Counter()
        ids = set()
        for commit in self.commits[:count]:
            for move in commit.moves:
                ids.add(move.id)
                balances[move.account] += move.amount
        return Bank(moves=frozenset(ids), balances={account: sum_ for account, sum_ in balances.items() if sum_})

    def count_at(self, instant: datetime) -> tuple[int, int]:
        """At least and at most how many commits a recovery to ``instant`` holds: it ends at the first later one."""
        later = next((at for at, one in enumerate(self.commits) if one.time > instant), len(self.commits))
        least = later
        while least and self.commits[least - 1].time > instant - RESOLUTION:
            least -= 1
        return least, later

    def up_to(self, end: Lsn) -> int:
        """How many commits have ended by a position."""
        return bisect_right(self.commits, end, key=lambda one: one.end)


def state_of(server: PostgresServer, database: str) -> Bank:
    """What a restored server holds."""
    ids = frozenset(row[0] for row in server.execute("SELECT id FROM moves", database))
    balances = dict(server.execute("SELECT id, balance::bigint FROM accounts WHERE balance <> 0", database))
    return Bank(moves=ids, balances=balances)


def difference(found: Bank, wanted: Bank) -> str | None:
    """What differs, for people; None when nothing does."""
    said = []
    if lost := wanted.moves - found.moves:
        said.append(f"{len(lost)} moves are missing, such as {sorted(lost)[:5]}")
    if more := found.moves - wanted.moves:
        said.append(f"{len(more)} moves are there that came later, such as {sorted(more)[:5]}")
    if not said and found.balances != wanted.balances:
        wrong = {key for key in found.balances.keys() | wanted.balances.keys()
                 if found.balances.get(key) != wanted.balances.get(key)}  # fmt: skip
        said.append(
            f"the balances of {len(wrong)} accounts are not the sum of their moves, such as {sorted(wrong)[:5]}"
        )
    return "; ".join(said) or None


def _move(message: bytes) -> Move:
    """The new row of an Insert message: relation id, ``N``, and the columns as text."""
    (columns,) = struct.unpack_from(">H", message, 6)
    at, values = 8, []
    for _ in range(columns):
        assert message[at : at + 1] == b"t", "no column of the table is null or left out"
        (length,) = struct.unpack_from(">I", message, at + 1)
        values.append(message[at + 5 : at + 5 + length])
        at += 5 + length
    return Move(id=int(values[0]), account=int(values[1]), amount=int(values[2]))
