"""What the records of one RDB add up to: versions, keys of each database, how it ends."""

from __future__ import annotations

from collections.abc import Iterable

from recoup.engines.redis.rdb import Auxiliary, End, Entry, Header, Record, Sizes, read_rdb


class Summary:
    """What the records of one RDB add up to."""

    def __init__(self) -> None:
        self.version = 0
        self.keys: dict[int, int] = {}
        self.stated_keys: dict[int, int] = {}  #: what the file itself says before each database
        self.server_version = ""
        self.end: End | None = None

    def add(self, record: Record) -> None:
        """Take the next record."""
        if isinstance(record, Entry):
            self.keys[record.database] = self.keys.get(record.database, 0) + 1
        elif isinstance(record, Sizes):
            self.stated_keys[record.database] = record.keys
        elif isinstance(record, Auxiliary) and record.name == b"redis-ver":
            self.server_version = record.value.decode(errors="replace")
        elif isinstance(record, Header):
            self.version = record.version
        elif isinstance(record, End):
            self.end = record


def summarise(chunks: Iterable[bytes]) -> Summary:
    """Read a whole RDB and return what it adds up to. Raise as ``read_rdb`` does."""
    summary = Summary()
    for record in read_rdb(chunks):
        summary.add(record)
    return summary
