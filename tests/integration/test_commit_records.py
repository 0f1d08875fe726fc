"""Where transactions commit in WAL, found as PostgreSQL's own pg_waldump finds it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recoup.engines.postgres.commit_records import CommitSearch
from recoup.engines.postgres.lsn import Lsn, parse_segment_name
from recoup.kernel.process import Command, run
from tests.integration.moment_place import repository_in
from tests.integration.wal_story import Story, story

_COMMIT = re.compile(r"lsn: ([0-9A-F]+/[0-9A-F]+), .* desc: COMMIT")


@pytest.mark.parametrize("major", [15, 18], ids=["postgres15", "postgres18"])
def test_every_commit_is_found_also_where_records_go_on_in_the_next_segment(major: int, server_folder: Path) -> None:
    with story(major, [repository_in(server_folder / "repository")]) as told:
        told.commit(40, filling=700)
        told.commit(5, filling=1_500_000)  # longer than a segment
        told.server.execute("CREATE TABLE other AS SELECT g FROM generate_series(1, 2000) g")
        told.commit(200)
        told.server.execute("SELECT pg_switch_wal()")
        told.commit(3)
        told.server.stop()
        names = sorted(path.name for path in (told.server.data_folder / "pg_wal").iterdir() if len(path.name) == 24)
        expected = _by_program(told, names)
        search, found = CommitSearch(), list[Lsn]()
        for name in names:
            timeline_and_number = parse_segment_name(name, told.segment_bytes)
            assert timeline_and_number is not None
            start = Lsn(timeline_and_number[1] * told.segment_bytes)
            found += search.look(start, (told.server.data_folder / "pg_wal" / name).read_bytes())
    assert len(expected) >= 248
    assert set(expected) <= set(found), "none is missing"
    late = [one for one in found if one not in set(expected)]
    assert all(one > max(expected) for one in late), "only what was left over from an earlier use of a file is more"


def _by_program(told: Story, names: list[str]) -> list[Lsn]:
    argv = [told.server.program("pg_waldump"), names[0], names[-1], "--rmgr=Transaction"]
    said = run(Command(argv=argv, folder=told.server.data_folder / "pg_wal"), expect=None)
    return [Lsn.parse(one) for one in _COMMIT.findall(said.stdout.decode())]
