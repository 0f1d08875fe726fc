"""The cross-chain check on real servers: a bad base backup, and bad or missing WAL, are found without production."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recoup.assembly.access import Found
from recoup.assembly.prove.cross_chain import Crossed, cross_chain
from recoup.assembly.prove.live import Allowed, open_live
from recoup.demo.host import temporary_folder
from recoup.engines.engine import Content, CopyFacts
from recoup.engines.postgres import cross_check
from recoup.engines.postgres.access import DirectAccess
from recoup.engines.postgres.base_backup import take_base_backup
from recoup.engines.postgres.base_fingerprint import take_with_fingerprint
from recoup.engines.postgres.cross_check import CROSSED
from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.sameness import INEXACT
from recoup.kernel import clock, ids
from recoup.kernel.errors import EngineError, UncheckedError
from recoup.kernel.finding import Verdict, overall
from recoup.kernel.process import Command, run
from recoup.kernel.secret import Secret
from recoup.repository.copy_reader import ArtefactReader
from recoup.repository.copy_writer import ArtefactWriter, Header
from recoup.repository.repository import Repository
from recoup.repository.wal_archive import WalArchive
from recoup.repository.wal_names import WalSegment
from tests.integration.moment_place import readable, repository_in
from tests.integration.wal_story import Story, story

_TABLES = """
CREATE TABLE marked (what text);
INSERT INTO marked VALUES ('good-marker');
CREATE UNLOGGED TABLE fleeting (a int);
CREATE SEQUENCE numbers;
"""


class Tampering:
    """A sink that changes a row on the way, as a bad disk or network below every checksum would."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.changed = 0

    @contextlib.contextmanager
    def stream(
        self, name: str, *, content: Content = Content.OPAQUE, expected_bytes: int | None = None
    ) -> Iterator[Any]:
        with self._inner.stream(name, content=content, expected_bytes=expected_bytes) as target:

            class Changed:
                def write(_, data: bytes | memoryview) -> None:  # noqa: N805
                    self.changed += bytes(data).count(b"good-marker")
                    target.write(bytes(data).replace(b"good-marker", b"evil-marker"))

            yield Changed()


def _without_checksums(told: Story) -> None:
    server = told.server
    server.stop()
    run(Command(argv=[server.program("pg_checksums"), "--disable", "-D", str(server.data_folder)], user=server.owner))
    server.start()


class Place:
    """A past with base backups: three good ones, then two of which a row was changed on the way."""

    def __init__(self, told: Story, root: Path) -> None:
        self.story, self.root = told, root
        if told.server.major < 17:
            _without_checksums(told)
        told.server.execute("; ".join(_TABLES.strip().split(";\n")))
        told.commit(3)
        told.archive()
        self.first = told.base().manifest.id
        told.commit(5, filling=300_000)
        told.server.execute("SELECT nextval('numbers') FROM generate_series(1, 50)")
        told.archive()
        self.second = self._taken(tampering=False)
        told.commit(2, filling=300_000)
        told.archive()
        self.third = self._taken(tampering=False)
        told.commit(1)
        told.archive()
        self.changed = self._taken(tampering=True)
        told.commit(1)
        told.archive()
        self.quiet = self._taken(tampering=True, writing=False)

    def _taken(self, *, tampering: bool, writing: bool = True) -> str:
        """A base backup, of which a row was changed on the way or not; its fingerprint is inexact, or not."""
        now, url = clock.now(), Secret(self.story.server.url())
        header = Header(id=ids.new_id(now), system="test", service="postgres", engine="postgres", label=None,
                        kind="base", begun=now)  # fmt: skip
        with ArtefactWriter(header, self.story.repositories) as writer:
            sink = Tampering(writer) if tampering else writer

            def take() -> CopyFacts:
                copy = take_base_backup(url, sink, label="busy")
                if writing:  # after what the copy recovers to, before its fingerprint is taken
                    self.story.commit(2)
                return copy

            outcome = writer.finish(take_with_fingerprint(DirectAccess(url), ["postgres"], take))
        assert not isinstance(sink, Tampering) or sink.changed
        return str(outcome.manifest.id)

    def copied(self, work: Path) -> Repository:
        """The repository again, for a test to damage."""
        shutil.copytree(self.root / "repository", work / "repository")
        return repository_in(work / "repository")


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with temporary_folder("cross") as root, story(request.param, [repository_in(root / "repository")]) as told:
        yield Place(told, root)


def on(*majors: int) -> pytest.MarkDecorator:
    """Tell a test's past on these majors only."""
    return pytest.mark.parametrize("place", majors, indirect=True, ids=lambda major: f"postgres{major}")


def crossed(place: Place, work: Path, identifier: str, repository: Repository | None = None, **more: Any) -> Crossed:
    opened = readable(work, repository or place.story.repositories[0])
    found = opened.find(identifier)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{place.story.server.bin}{os.pathsep}{os.environ['PATH']}")
        result = cross_chain(
            opened, Found(manifest=found.manifest, holders=found.holders), sandboxes=work / "sandboxes", **more
        )
    left = sorted(path.name for path in (work / "sandboxes").glob("*")) if (work / "sandboxes").exists() else []
    assert [name for name in left if name != "door.lock"] == []
    return result


def segments_between(place: Place, repository: Repository, first: str, second: str) -> list[WalSegment]:
    """The segments that only the way from the first base backup needs."""
    size = place.story.segment_bytes
    begin, end = (
        Lsn.parse(str(ArtefactReader(repository.manifest(one), [repository]).facts[name])).value // size
        for one, name in ((first, "end_lsn"), (second, "begin_lsn"))
    )
    archive = WalArchive(repository, "postgres", place.story.system_identifier)
    return [one for one in archive.entries() if isinstance(one, WalSegment) and begin < one.number(size) < end]


@on(15, 17)
def test_two_base_backups_and_the_wal_between_lead_to_the_same_data(place: Place, server_folder: Path) -> None:
    result = crossed(place, server_folder, place.second)
    (found,) = result.findings
    assert found.verdict is Verdict.OK, found
    assert place.first in found.detail
    assert place.second in found.detail
    assert '"public"."fleeting"' in found.not_checked


@on(15, 17)
def test_a_base_backup_in_which_a_row_was_changed_fails_and_the_table_is_named(
    place: Place, server_folder: Path
) -> None:
    (found,) = crossed(place, server_folder, place.changed).findings
    assert found.verdict is Verdict.FAILED, found.detail
    assert found.subject == 'postgres: "public"."marked"'
    assert place.third in found.detail
    seen = (
        "1 rows on both sides, and at least one differs" if place.story.server.major == 15 else "invalid page in block"
    )
    assert seen in found.detail


@on(15)
def test_a_missing_segment_between_two_base_backups_is_unknown_and_named(place: Place, server_folder: Path) -> None:
    repository = place.copied(server_folder)
    lost = segments_between(place, repository, place.first, place.second)[1]
    (server_folder / "repository" / lost.key).unlink()
    (found,) = crossed(place, server_folder, place.second, repository).findings
    assert found.verdict is Verdict.UNKNOWN
    assert f"from {place.first} on, WAL segment {lost.name} is missing" in found.detail
    assert found.hint


@on(15)
def test_a_damaged_segment_between_two_base_backups_fails_and_is_named(place: Place, server_folder: Path) -> None:
    repository = place.copied(server_folder)
    bad = segments_between(place, repository, place.first, place.second)[0]
    path = server_folder / "repository" / bad.key
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (found,) = crossed(place, server_folder, place.second, repository).findings
    assert found.verdict is Verdict.FAILED, found.detail
    assert bad.name in found.detail


@on(15)
def test_a_segment_that_was_bad_before_it_was_archived_fails(place: Place, server_folder: Path) -> None:
    repository = place.copied(server_folder)
    bad = segments_between(place, repository, place.first, place.second)[0]
    archive = WalArchive(repository, "postgres", place.story.system_identifier)
    data = bytearray(archive.read(bad))
    data[place.story.segment_bytes // 2] ^= 0xFF
    (server_folder / "repository" / bad.key).unlink()
    archive.put_segment(bad.name, bytes(data), bad.stamp)
    found = crossed(place, server_folder, place.second, repository).findings
    assert overall(found) is Verdict.FAILED, found


@on(15)
def test_without_an_earlier_base_backup_room_time_or_programs_it_is_not_made_and_says_why(
    place: Place, server_folder: Path
) -> None:
    assert crossed(place, server_folder, place.first).why_not == "there is no base backup before it"
    assert "are left" in crossed(place, server_folder, place.second, left_seconds=0.01).why_not

    def no_room(_kind: str, _chain: object) -> None:
        raise UncheckedError("there is not enough room to restore it")

    assert "not enough room" in crossed(place, server_folder, place.second, require_room=no_room).why_not

    def no_programs(_sandbox: object, major: int) -> Path:
        raise EngineError(f"there is no PostgreSQL {major} server on this machine")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_check, "find_sandbox_programs", no_programs)
        assert "no PostgreSQL 15" in crossed(place, server_folder, place.second).why_not


@on(17)
def test_what_was_written_while_a_copy_was_taken_is_settled_by_the_way_through_the_wal(
    place: Place, server_folder: Path
) -> None:
    opened = readable(server_folder, *place.story.repositories)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{place.story.server.bin}{os.pathsep}{os.environ['PATH']}")
        with open_live(opened, opened.find(place.third), Allowed())() as live:
            assert overall(live.boots()) is Verdict.OK
            found = live.same()
    assert overall(found) is Verdict.OK, found
    (settled,) = [one for one in found if one.check == INEXACT]
    assert settled.detail.endswith('another base backup and the WAL show: postgres: "public"."story"')
    assert any(one.check == CROSSED and place.second in one.detail for one in found)


@on(15)
def test_a_row_that_was_changed_on_the_way_differs_from_the_fingerprint_of_a_quiet_server(
    place: Place, server_folder: Path
) -> None:
    opened = readable(server_folder, *place.story.repositories)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{place.story.server.bin}{os.pathsep}{os.environ['PATH']}")
        with open_live(opened, opened.find(place.quiet), Allowed())() as live:
            assert overall(live.boots()) is Verdict.OK
            found = [one for one in live.same() if one.verdict is not Verdict.OK]
    differing, not_crossed = found
    assert (differing.verdict, differing.subject) == (Verdict.FAILED, 'postgres: "public"."marked"')
    assert differing.detail == "1 rows on both sides, and at least one differs"
    assert (not_crossed.verdict, not_crossed.check) == (Verdict.UNKNOWN, CROSSED)
    assert "is missing" in not_crossed.detail
    assert "not archived yet" in str(not_crossed.hint)


def test_an_incremental_backup_is_held_against_what_it_shares_least_with(server_folder: Path) -> None:
    with story(17, [repository_in(server_folder / "repository")], settings={"summarize_wal": "on"}) as told:
        told.commit(2)
        whole = told.base()
        told.commit(2, filling=200_000)
        told.archive()
        part = told.base(since=whole)
        told.commit(1)
        told.archive()
        opened = readable(server_folder, *told.repositories)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{told.server.bin}{os.pathsep}{os.environ['PATH']}")
            result = cross_chain(opened, opened.find(part.manifest.id), sandboxes=server_folder / "sandboxes")
    (found,) = result.findings
    assert found.verdict is Verdict.OK, found
    assert f"what both have from {whole.manifest.id}" in found.not_checked
