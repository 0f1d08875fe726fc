"""Catching up for real: a repository that was away gets what the others hold, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from recoup.assembly.protect.prune import prune
from recoup.assembly.protect.sync import Synced, sync
from recoup.demo.servers import S3Server
from recoup.kernel import clock
from recoup.kernel.errors import BusyError, Exit, WrongKeyError
from recoup.kernel.secret import Secret
from recoup.repository import layout
from recoup.repository.catalog import read_catalog
from recoup.repository.copy_reader import ArtefactReader
from recoup.repository.lease import hold_lease
from recoup.repository.repository import Repository, create_repository
from recoup.repository.seal import Key
from recoup.repository.stream_archive import StreamArchive, seal_stream, segment_name
from recoup.repository.wal_archive import WalArchive
from recoup.storage.faults import Fault, FaultyStore
from recoup.storage.local import LocalStore
from recoup.storage.memory import MemoryStore
from recoup.storage.object_store import ObjectStore
from recoup.storage.s3 import S3Store
from tests.integration.planted import OpenSystem, Planted, plant

ROOT = Path(__file__).parents[2]
KEY = Key.from_text("00c0ffee" * 8)
DAY = timedelta(days=1)
CLUSTER = "7412345678901234567"
LINE = "0123456789" * 4
RETENTION = "{daily: 3, minimum: 1, wal: 1d}"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder, and a state folder of its own."""
    monkeypatch.setenv("RECOUP_STATE", str(tmp_path / "state"))
    return tmp_path / "stack"  # type: ignore[return-value]


def two(folder: Path, *, second: str = "{path: offsite}", retention: str = RETENTION) -> Planted:
    """A plan with the repositories ``local`` and ``offsite``, both made."""
    folder.mkdir(exist_ok=True)
    (folder / "recoup.key").write_text("00c0ffee" * 8 + "\n")
    (folder / "notes").mkdir(exist_ok=True)
    (folder / "notes" / "one.txt").write_text("what there is to keep\n" * 2000)
    (folder / "recoup.yaml").write_text(
        "recoup: 1\nsystem: Shop\ntimezone: Europe/Berlin\nkey: {file: recoup.key}\n"
        "services:\n  notes: {engine: files, paths: [notes]}\n"
        '  pg: {engine: postgres, url: "postgresql://backup@localhost/shop"}\n'
        '  cache: {engine: redis, url: "redis://localhost"}\n'
        f"repositories:\n  local: {{path: backups}}\n  offsite: {second}\nretention: {retention}\n"
    )
    system = OpenSystem.from_file(folder / "recoup.yaml")
    assert isinstance(system, OpenSystem)
    system.stores = {}
    system.open(writing=True)
    return Planted(folder=folder, system=system)


def of(place: Planted, name: str) -> Repository:
    (found,) = place.system.open(only=name).repositories
    return found


def fill(place: Planted, *, days: int = 5) -> dict[str, list[str]]:
    """Everything there can be, in ``local`` alone; the ids of the copies by kind, newest first."""
    local, source, newest = of(place, "local"), place.folder / "notes", clock.now() - timedelta(hours=1)
    ids: dict[str, list[str]] = {"files": [plant([local], newest - n * DAY, source) for n in range(days)]}
    facts = {"system_identifier": CLUSTER, "begin_lsn": "0/3000000", "timeline": 1, "wal_segment_bytes": 16 << 20}
    ids["base"] = [plant([local], newest - DAY * 2, source, service="pg", kind="base", facts=facts)]
    child = {**facts, "begin_lsn": "0/4000000"}
    ids["incremental"] = [
        plant([local], newest, source, service="pg", kind="incremental", facts=child, depends_on=tuple(ids["base"]))
    ]
    ids["dump"] = [plant([local], newest, source, service="pg", kind="dump")]
    known = {"replid": LINE, "offset": 100}
    ids["rdb"] = [plant([local], newest - 2 * DAY, source, service="cache", kind="rdb", facts=known)]
    ids["stack"] = [
        plant([local], newest, source, service="stack", kind="stack", depends_on=(ids["files"][0], ids["base"][0]))
    ]
    archive = WalArchive(local, "pg", CLUSTER)
    archive.put_history(2, b"1\t0/5000000\tno recovery target specified\n", newest)
    for number in (2, 3, 4, 5):
        archive.put_segment(f"{1:08X}{0:08X}{number:08X}", bytes(1000) + bytes([number]), newest - (6 - number) * DAY)
    archive.put_piece(f"{1:08X}{0:08X}{6:08X}", 0, b"the segment in progress", newest)
    stream = StreamArchive(local, "cache")
    for start, age in ((0, 9), (100, 1), (200, 0)):
        name = segment_name(start, start + 100)
        stamp = newest - age * DAY
        stream.put(seal_stream(KEY, service="cache", replication_id=LINE, name=name, stamp=stamp, plain=b"x" * 100))
    return ids


def one(results: tuple[Synced, ...], name: str = "offsite") -> Synced:
    return next(each for each in results if each.repository == name)


def held(repository: Repository, folder: Path) -> set[str]:
    return {entry.id for entry in read_catalog([repository], folder / "other-state").entries}


def whole(repository: Repository, artefact: str) -> bool:
    reader = ArtefactReader(repository.manifest(artefact), [repository])
    return all(len(b"".join(reader.read(stream.name))) > 0 for stream in reader.streams())


def wal_in(repository: Repository) -> list[str]:
    archive = WalArchive(repository, "pg", CLUSTER)
    assert all(archive.read(entry) for entry in archive.entries())
    return [entry.key.rsplit("/", 1)[-1].rsplit("-", 2)[0] for entry in archive.entries()]


def stream_in(repository: Repository) -> list[int]:
    archive = StreamArchive(repository, "cache")
    assert all(archive.read(entry) for entry in archive.entries())
    return [entry.start for entry in archive.entries()]


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_a_repository_that_was_away_gets_every_kind_that_its_rules_keep_and_nothing_else(
    work: Path, where: str, request: pytest.FixtureRequest
) -> None:
    place = two(work)
    if where == "bucket":
        s3: S3Server = request.getfixturevalue("s3")
        bucket = S3Store(
            s3.new_bucket(), "shop", endpoint_url=s3.endpoint, region=s3.region,
            access_key=s3.access_key, secret_key=Secret(s3.secret_key),
        )  # fmt: skip
        for info in LocalStore(work / "offsite").list():
            bucket.put(info.key, LocalStore(work / "offsite").get(info.key))
        place.system.stores = {"offsite": bucket}
    ids = fill(place)
    seen = one(sync(place.system, plan=True))
    assert held(of(place, "offsite"), work) == set(), "a plan changes nothing"
    result = one(sync(place.system))
    assert result.exit_code is Exit.OK, result
    expected = {*ids["files"][:3], *(name for kind, names in ids.items() if kind != "files" for name in names)}
    offsite = of(place, "offsite")
    assert held(offsite, work) == expected
    assert all(whole(offsite, name) for name in expected)
    for name in expected:
        assert offsite.store.get(layout.manifest_key(name)) == of(place, "local").store.get(layout.manifest_key(name))
    assert wal_in(offsite) == [
        f"{1:08X}{0:08X}{number:08X}" + (".00000000-00000017.partial" if number == 6 else "") for number in (3, 4, 5, 6)
    ] + ["00000002.history"], "segment 2 is older than the base backup from which the window is reached"
    assert stream_in(offsite) == [100, 200]
    assert seen.lack is not None
    assert {entry.id for entry in seen.lack.copies} == expected
    assert (len(seen.lack.wal), len(seen.lack.streams)) == (result.wal, result.streams) == (5, 2)
    again = sync(place.system)
    assert all(each.exit_code is Exit.OK and each.lack is not None and each.lack.nothing for each in again)
    assert list((place.system.state_folder / "unfinished").glob("*")) == []
    for pruned in prune(place.system, only="offsite"):
        assert not any(fate.removed for fate in pruned.copies), "what sync brings, prune keeps"
        assert not any(fate.removed for fate in (*pruned.wal, *pruned.streams))


def test_a_repository_gets_only_the_kinds_that_the_plan_gives_it(work: Path) -> None:
    place = two(work, second="{path: offsite, copy: [dump, wal]}")
    ids = fill(place)
    result = one(sync(place.system))
    assert (result.exit_code, held(of(place, "offsite"), work)) == (Exit.OK, set(ids["dump"]))
    assert result.lack is not None
    assert [identifier for identifier, _ in result.lack.left] == ids["stack"], "its members do not go there"
    assert stream_in(of(place, "offsite")) == []
    assert len(wal_in(of(place, "offsite"))) == 6


def test_what_is_damaged_in_one_repository_comes_from_another_and_never_spreads(work: Path) -> None:
    place = two(work, second="{path: offsite}\n  third: {path: third}")
    ids = fill(place)
    assert one(sync(place.system), "third").exit_code is Exit.OK
    shutil.rmtree(work / "offsite")
    shutil.copytree(work / "third", work / "offsite", ignore=shutil.ignore_patterns("artefacts", "manifests", "wal"))
    (victim, *_) = (work / "backups").glob(f"artefacts/*/*/{ids['dump'][0]}/*.zst.enc")
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    (segment,) = (work / "backups").glob(f"wal/pg/*/*/{1:08X}{0:08X}{4:08X}-*")
    segment.write_bytes(segment.read_bytes()[:-1] + b"x")
    assert one(sync(place.system)).exit_code is Exit.OK
    assert whole(of(place, "offsite"), ids["dump"][0])
    assert len(wal_in(of(place, "offsite"))) == 5


def test_what_is_damaged_everywhere_is_a_failure_and_leaves_nothing(work: Path) -> None:
    place = two(work)
    ids = fill(place)
    (victim, *_) = (work / "backups").glob(f"artefacts/*/*/{ids['base'][0]}/*.zst.enc")
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    result = one(sync(place.system))
    assert result.exit_code is Exit.FAILED
    assert set(result.failed) == {*ids["base"], *ids["incremental"], *ids["stack"]}, "nor what depends on it"
    offsite = of(place, "offsite")
    assert not held(offsite, work) & set(result.failed)
    assert set(ids["files"][:3]) <= held(offsite, work), "the others go on"
    assert not list((work / "offsite").glob(f"artefacts/*/*/{ids['base'][0]}/*"))


def test_a_damaged_manifest_is_replaced_and_what_is_right_beside_it_stays(work: Path) -> None:
    place = two(work)
    ids = fill(place)
    sync(place.system)
    path = work / "offsite" / "manifests" / f"{ids['dump'][0]}.json"
    path.write_bytes(path.read_bytes().replace(b'"dump"', b'"pump"', 1))
    result = one(sync(place.system))
    assert (result.exit_code, result.healed) == (Exit.OK, ids["dump"])
    assert whole(of(place, "offsite"), ids["dump"][0])


def test_a_repository_that_is_away_or_has_another_key_is_skipped_and_is_never_ok(work: Path) -> None:
    place = two(work, second="{path: offsite}\n  third: {path: third}")
    fill(place)
    shutil.rmtree(work / "offsite")
    shutil.rmtree(work / "third")
    create_repository("third", LocalStore(work / "third", create=True), Key.from_text("11c0ffee" * 8))
    results = sync(place.system)
    assert [each.exit_code for each in results] == [Exit.UNKNOWN] * 3, "the others may hold what it lacks"
    assert "was there before and is not there now" in str(one(results).error)
    assert isinstance(one(results, "third").error, WrongKeyError)
    (work / "recoup.key").write_text("22c0ffee" * 8 + "\n")
    system = OpenSystem.from_file(work / "recoup.yaml")
    assert isinstance(system, OpenSystem)
    system.stores = {}
    shutil.copytree(work / "backups", work / "offsite")
    with pytest.raises(WrongKeyError):
        sync(system)


def test_a_new_repository_of_the_plan_is_made_and_filled(work: Path) -> None:
    place = two(work)
    ids = fill(place)
    text = (work / "recoup.yaml").read_text().replace("\nretention:", "\n  fresh: {path: fresh}\nretention:", 1)
    (work / "recoup.yaml").write_text(text)
    system = OpenSystem.from_file(work / "recoup.yaml")
    assert isinstance(system, OpenSystem)
    system.stores = {}
    assert one(sync(system, plan=True), "fresh").exit_code is Exit.UNKNOWN
    assert not (work / "fresh").exists()
    assert one(sync(system), "fresh").exit_code is Exit.OK
    assert whole(Planted(folder=work, system=system).system.open(only="fresh").repositories[0], ids["files"][0])


def test_two_syncs_do_not_meet_and_a_service_at_work_is_left_alone(work: Path) -> None:
    place = two(work)
    ids = fill(place)
    with hold_lease(place.system.state_folder, "prune", "sync"), pytest.raises(BusyError):
        sync(place.system)
    with hold_lease(place.system.state_folder, "notes", "backup of notes (files)"):
        result = one(sync(place.system))
    assert (result.exit_code, set(result.busy)) == (Exit.BUSY, {"notes"})
    assert set(ids["dump"]) <= held(of(place, "offsite"), work)
    assert one(sync(place.system)).exit_code is Exit.OK


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.LOST_ANSWER, Fault.CUT, Fault.FLIP])
@pytest.mark.parametrize("where", ["local", "offsite"])
def test_every_storage_operation_failing_once_spreads_no_damage_and_the_next_run_converges(
    work: Path, fault: Fault, where: str
) -> None:
    place = two(work, retention="{daily: 1, minimum: 1, wal: 1d}")
    ids = fill(place, days=1)
    places: dict[str, ObjectStore] = {}
    begun = {
        name: {info.key: of(place, name).store.get(info.key) for info in of(place, name).store.list()}
        for name in ("local", "offsite")
    }
    expected = {name for names in ids.values() for name in names}
    segments = [f"{1:08X}{0:08X}{number:08X}" for number in (3, 4, 5)]
    expected_wal = [*segments, f"{1:08X}{0:08X}{6:08X}.00000000-00000017.partial", "00000002.history"]
    number = 1
    while True:
        for name, objects in begun.items():
            places[name] = MemoryStore()
            for key, data in objects.items():
                places[name].put(key, data)
        faulty = FaultyStore(places[where], fail_call=number, fault=fault, seed=number)
        place.system.stores = {**places, where: faulty}
        shutil.rmtree(place.system.state_folder)
        first = sync(place.system)
        offsite = replace(of(place, "offsite"), store=places["offsite"])
        left = held(offsite, work)
        assert all(whole(offsite, name) for name in left), f"{faulty.struck}"
        if all(each.exit_code is Exit.OK for each in first):
            assert left == expected, f"{faulty.struck}: said to be done"
        place.system.stores = places
        second = one(sync(place.system))
        assert second.exit_code is Exit.OK, f"{faulty.struck}: {second.failed}"
        assert held(offsite, work) == expected, f"{faulty.struck}"
        # Who could not read a manifest in the first run brought more of the logs than was needed, never less.
        assert wal_in(offsite)[-5:] == expected_wal, f"{faulty.struck}"
        assert stream_in(offsite)[-2:] == [100, 200], f"{faulty.struck}"
        if not faulty.struck:
            assert number > 100, "too few operations to mean anything"
            return
        number += 1 if number < 6 else 23


@pytest.mark.parametrize("number", [20, 70, 110, 150])
def test_a_sync_that_is_killed_leaves_nothing_that_the_next_one_does_not_finish(work: Path, number: int) -> None:
    place = two(work, retention="{daily: 1, minimum: 1, wal: 1d}")
    ids = fill(place, days=1)
    command = [sys.executable, "-m", "tests.integration.killed_run", "sync", str(work), "offsite", str(number)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=120)
    assert done.returncode == -9, done.stderr.decode()
    offsite = of(place, "offsite")
    assert all(whole(offsite, name) for name in held(offsite, work))
    result = one(sync(place.system))
    assert result.exit_code is Exit.OK, result.failed
    assert held(offsite, work) == {name for names in ids.values() for name in names}
    assert (len(wal_in(offsite)), stream_in(offsite)) == (5, [100, 200])
    assert list((place.system.state_folder / "unfinished").glob("*")) == []
    assert not [path for path in (work / "offsite").rglob("*") if "incoming" in path.name and path.is_file()]
