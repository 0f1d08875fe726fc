"""Objects, indexes and manifests that are changed, cut, gone or empty: found, passed over, never restored."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from recoup.demo.servers import PostgresServer, RedisServer
from tests.acceptance.workplace import Workplace
from tests.integration.logical import databases_of, small_database


@pytest.fixture
def filed(work: Workplace) -> tuple[Workplace, str]:
    """A plan with one file set, and a copy of it."""
    (work.folder / "data").mkdir()
    (work.folder / "data" / "one").write_text("one")
    work.services["files"] = "{engine: files, paths: [data]}"
    work.write_plan()
    return work, work.backup()


def test_a_manifest_that_rots_unnoticed_does_not_stop_the_next_backup(
    work: Workplace, postgres18: PostgresServer
) -> None:
    work.add_postgres(postgres18, small_database(postgres18))
    work.write_plan()
    artefact = work.backup()
    assert list(work.listed()) == [artefact]
    manifest = work.local / "manifests" / f"{artefact}.json"
    facts = manifest.stat()
    data = bytearray(manifest.read_bytes())
    data[len(data) // 2] ^= 1
    with manifest.open("r+b") as handle:
        handle.write(data)
    # As a failing disk does it: the file system takes no note, so the catalog sees no new version either.
    now = manifest.stat()
    assert now.st_ino == facts.st_ino
    (catalog,) = work.state.rglob("catalog-*.sqlite")
    with contextlib.closing(sqlite3.connect(catalog)) as database:
        database.execute("update entry set version = ?", [f"{now.st_ino:x}-{now.st_ctime_ns:x}"])
        database.commit()
    other = work.backup()
    work.recoup("verify", other)
    ended = work.recoup("verify", artefact, expect=3)
    assert artefact in ended.said


def _victims(work: Workplace, artefact: str) -> dict[str, Path]:
    largest = max(work.objects(artefact), key=lambda path: path.stat().st_size)
    return {
        "object": largest,
        "index": largest.with_name(largest.name.replace(".zst.enc", ".index.enc")),
        "manifest": work.local / "manifests" / f"{artefact}.json",
    }


@pytest.mark.parametrize("part", ["object", "index", "manifest"])
@pytest.mark.parametrize("harm", ["flipped", "cut", "missing", "empty"])
def test_damage_in_one_repository_is_found_and_the_restore_goes_on_from_the_other(
    filed: tuple[Workplace, str], part: str, harm: str
) -> None:
    work, _ = filed
    (work.folder / "data" / "big").write_bytes(bytes(range(256)) * 4000)
    work.repositories["second"] = "{path: second}"
    work.write_plan()
    artefact = work.backup()
    victim = _victims(work, artefact)[part]
    data = bytearray(victim.read_bytes())
    match harm:
        case "flipped":
            data[len(data) // 2] ^= 1
            victim.write_bytes(data)
        case "cut":
            victim.write_bytes(data[: len(data) * 2 // 3])
        case "empty":
            victim.write_bytes(b"")
        case _:
            victim.unlink()
    gone = part == "manifest" and harm == "missing"  # then the artefact does not exist there, which is no damage
    verified = work.recoup("verify", artefact, "--json", expect=0 if gone else 3)
    if part != "manifest":
        failed = [one for one in verified.json["artefacts"][0]["findings"] if one["verdict"] == "failed"]
        assert any(victim.name in one["subject"] and one["hint"] for one in failed)
    elif not gone:
        assert any(artefact in problem for problem in verified.json["problems"])
    report = work.json("restore", artefact, "--destination", "out")
    assert (work.folder / "out" / "data" / "one").read_text() == "one"
    assert any("read from another repository" in note for note in report["notes"]) != gone, report
    # From the damaged one alone: refused, and nothing that could be taken for the copy.
    ended = work.recoup("restore", artefact, "--from", "local", "--destination", "alone", expect=2 if gone else 3)
    assert "hint: " in ended.err
    assert not (work.folder / "alone" / "data" / "big").exists()


@pytest.mark.parametrize("kind", ["base", "dump", "rdb"])
def test_a_restore_from_nothing_but_damage_changes_nothing(
    work: Workplace, postgres16: PostgresServer, redis8: RedisServer, kind: str
) -> None:
    database = small_database(postgres16, rows=20_000)
    work.add_postgres(postgres16, database)
    work.add_redis(redis8)
    client = redis8.client()
    client.set("big", bytes(range(256)) * 8000)
    work.write_plan()
    artefact = work.backup("redis" if kind == "rdb" else "postgres", "--kind", kind)
    victim = max(work.objects(artefact), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[-40] ^= 1
    victim.write_bytes(data)
    client.set("later", "written")
    before = databases_of(postgres16)
    if kind != "base":
        work.recoup("restore", artefact, "--force", expect=3)
        assert databases_of(postgres16) == before
        assert client.get("later") == b"written"
        assert client.info("replication")["role"] == "master"
    folder = work.folder / "out"
    ended = work.recoup("restore", artefact, "--destination", "out", expect=3)
    assert victim.name in ended.err
    left = [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
    assert not [path for path in left if path.name in ("pg_control", "dump.rdb") or path.suffix in (".dump", ".sql")], (
        left
    )
    client.close()
    shutil.rmtree(folder, ignore_errors=True)
