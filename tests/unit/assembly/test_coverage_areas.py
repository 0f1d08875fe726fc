"""Since when the bytes of a copy are taken as read, when nothing else is noted of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from recoup.assembly.prove.coverage import areas_of
from recoup.kernel import clock
from recoup.repository.catalog import Entry


@dataclass(frozen=True, kw_only=True)
class Place:
    """What is asked of a repository here."""

    created: datetime
    name: str = "local"
    identity: str = "r"


def _entry(ended: datetime) -> Entry:
    return Entry(
        id="a", service="db", engine="postgres", kind="base", label=None, begun_text=clock.to_text(ended),
        ended_text=clock.to_text(ended), stored_bytes=10, plain_bytes=10, repositories=("local",),
    )  # fmt: skip


def test_a_copy_of_the_future_counts_as_read_no_later_than_its_repository_was_made() -> None:
    now = clock.now()
    made, ahead = now - timedelta(days=90), now + timedelta(days=400)
    for ended, created, read in (
        (now - timedelta(days=1), made, now - timedelta(days=1)),
        (ahead, made, made),
        (ahead, ahead, datetime(1970, 1, 1, tzinfo=UTC)),
    ):
        (area,) = areas_of([Place(created=created)], [_entry(ended)])  # type: ignore[list-item]
        assert abs(area.written - read) < timedelta(seconds=1)
