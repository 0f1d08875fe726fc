"""Recovery to a moment when the past has branched, or has something in it that a base backup does not know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from recoup.demo.host import temporary_folder
from recoup.engines.postgres.recovery_target import AtTime, AtXid, Latest
from recoup.kernel.errors import RefusedError
from recoup.kernel.finding import Verdict, overall
from tests.integration.moment_place import recover, repository_in
from tests.integration.wal_story import Story, booted, own, rows_in, story

EACH = pytest.mark.parametrize("major", [15, 16, 17, 18], ids=lambda major: f"postgres{major}")


@pytest.fixture(scope="module", params=[15, 16, 17, 18], ids=lambda major: f"postgres{major}")
def fresh(request: pytest.FixtureRequest) -> Iterator[Story]:
    """A story of its own, told so far: three rows, a base backup, three rows; archived."""
    with temporary_folder("fresh") as root, story(request.param, [repository_in(root / "repository")]) as told:
        told.commit(3)
        told.base()
        told.commit(3, filling=100_000)
        told.archive()
        yield told


def test_a_second_recovery_lands_on_the_timeline_it_was_told(fresh: Story, server_folder: Path) -> None:
    told = fresh
    abandoned = told.commit(3, filling=400_000)
    told.archive()
    folder, _ = recover(told, server_folder, AtTime(time=told.commits[4].time))
    with booted(told, folder) as server:
        later = replace(told, server=server, commits=[*told.commits[:5]])
        assert server.execute("SELECT count(*) FROM story") == [(5,)]
        later.commits += [replace(told.commits[-1], row=100)] * 20  # rows of the second life begin at 26
        second_life = later.commit(2, filling=400_000)
        later.archive()
        now = later.commit()
        later.archive(piece=True)
    for target, timeline, rows in (
        (AtTime(time=second_life.time), None, [1, 2, 3, 4, 5, 26, 27]),
        (AtXid(xid=second_life.xid), 2, [1, 2, 3, 4, 5, 26, 27]),
        (Latest(), None, [1, 2, 3, 4, 5, 26, 27, 28]),
        (AtTime(time=abandoned.time), 1, list(range(1, 10))),
    ):
        recovered, report = recover(told, server_folder, target, timeline=timeline)
        assert overall(report.findings) is Verdict.OK, report
        assert any("now timeline 3" in note for note in report.notes)
        assert rows_in(told, recovered) == rows
    assert now.row == 28
    with pytest.raises(RefusedError, match="more than one timeline") as refused:
        recover(told, server_folder, AtXid(xid=second_life.xid))
    assert "--timeline 1 or --timeline 2" in str(refused.value.hint)


@EACH
def test_the_piece_of_the_present_segment_is_recovered_too(major: int, server_folder: Path) -> None:
    with story(major, [repository_in(server_folder / "repository")]) as told:
        told.base()
        told.commit(2)
        told.archive()
        last = told.commit()
        told.archive(piece=True)
        folder, report = recover(told, server_folder, Latest())
        assert overall(report.findings) is Verdict.OK, report
        assert rows_in(told, folder) == [1, 2, last.row]


@EACH
def test_a_tablespace_made_after_the_base_backup_is_refused_and_untouched(major: int, server_folder: Path) -> None:
    with story(major, [repository_in(server_folder / "repository")]) as told:
        space = own(told, server_folder / "space")
        told.commit()
        told.base()
        told.commit(2)
        before = told.archive()
        told.server.execute(f"CREATE TABLESPACE later LOCATION '{space}'")
        told.server.execute("CREATE TABLE precious TABLESPACE later AS SELECT 1 AS one")
        told.commit()
        told.archive()
        seen = sorted(space.rglob("*"))
        with pytest.raises(RefusedError, match=f"makes a tablespace in {space}"):
            recover(told, server_folder, Latest())
        assert sorted(space.rglob("*")) == seen
        assert before
        folder, _ = recover(told, server_folder, AtTime(time=told.commits[2].time, before=True))
        assert rows_in(told, folder) == [1, 2]


def test_a_recovery_starts_from_an_incremental_backup_when_that_is_the_newest(server_folder: Path) -> None:
    with story(17, [repository_in(server_folder / "repository")], settings={"summarize_wal": "on"}) as told:
        told.commit(2)
        whole = told.base()
        told.commit(2)
        incremental = told.base(since=whole)
        told.commit()
        told.archive()
        last = told.commit()
        told.archive()
        folder, report = recover(told, server_folder, AtTime(time=last.time, before=True))
        assert overall(report.findings) is Verdict.OK, report
        assert incremental.manifest.id in report.notes[0]
        assert rows_in(told, folder) == [1, 2, 3, 4, 5]
