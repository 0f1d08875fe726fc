"""Pruning for real: copies in a folder and in a bucket with Object Lock; what stays can still be read."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from recoup.assembly.protect.prune import Pruned, prune
from recoup.backup.run_records import begin_task, end_task
from recoup.demo.servers import S3Server
from recoup.kernel import clock
from recoup.kernel.errors import BusyError, Exit
from recoup.kernel.secret import Secret
from recoup.repository import layout
from recoup.repository.catalog import read_catalog
from recoup.repository.copy_reader import ArtefactReader
from recoup.repository.expire import ORPHAN_AGE
from recoup.repository.holds import HoldRecord, place_hold
from recoup.repository.lease import hold_lease
from recoup.repository.proofs import ProofRecord, Proofs
from recoup.repository.repository import Repository
from recoup.repository.wal_archive import WalArchive
from recoup.repository.wal_names import WalHistory, WalSegment
from recoup.storage.counting import CountingStore
from recoup.storage.faults import Fault, FaultyStore
from recoup.storage.memory import MemoryStore
from recoup.storage.object_store import ObjectStore
from recoup.storage.s3 import S3Store
from tests.integration.planted import Planted, plant, planted

ROOT = Path(__file__).parents[2]
DAY = timedelta(days=1)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder, and a state folder of its own."""
    monkeypatch.setenv("RECOUP_STATE", str(tmp_path / "state"))
    return tmp_path / "stack"  # type: ignore[return-value]


def _fill(place: Planted, days: int, **more: object) -> list[str]:
    """A copy a day, the newest an hour ago; their ids, newest first."""
    newest = clock.now() - timedelta(hours=1)
    source = place.folder / "notes"
    return [plant([place.repository], newest - n * DAY, source, **more) for n in range(days)]  # type: ignore[arg-type]


def _ids(repository: Repository, folder: Path) -> list[str]:
    return [entry.id for entry in read_catalog([repository], folder / "other-state").entries]


def _objects(store: ObjectStore) -> set[str]:
    return {parts[2] for info in store.list(layout.ARTEFACTS) if (parts := layout.place_of_object(info.key))}


def _whole(repository: Repository, artefact: str) -> bool:
    reader = ArtefactReader(repository.manifest(artefact), [repository])
    return all(len(b"".join(reader.read(stream.name))) > 0 for stream in reader.streams())


def _one(results: tuple[Pruned, ...]) -> Pruned:
    (result,) = results
    return result


def test_prune_removes_what_no_rule_keeps_and_what_stays_can_be_read(work: Path) -> None:
    place = planted(work, retention="{daily: 3, minimum: 1}")
    copies = _fill(place, 6)
    result = _one(prune(place.system))
    assert result.exit_code is Exit.OK
    assert [fate.decision.copy.id for fate in result.copies if fate.removed] == copies[3:]
    assert _ids(place.repository, work) == copies[:3]
    assert _objects(place.repository.store) == set(copies[:3])
    assert all(_whole(place.repository, one) for one in copies[:3])
    again = _one(prune(place.system))
    assert (again.exit_code, [fate.decision.keep for fate in again.copies]) == (Exit.OK, [True] * 3)
    assert list((place.system.state_folder / "unfinished").glob("*")) == []


def test_a_dry_run_says_the_same_and_changes_nothing(work: Path) -> None:
    place = planted(work, retention="{daily: 2, minimum: 1}")
    _fill(place, 5)
    counting = CountingStore(place.repository.store)
    place.system.stores = {"local": counting}
    before = {info.key: info.version for info in place.repository.store.list()}
    dry = _one(prune(place.system, dry_run=True))
    assert {info.key: info.version for info in place.repository.store.list()} == before
    assert set(counting.operations) <= {"list", "get", "stat", "read", "read_range"}, counting.operations
    done = _one(prune(place.system))
    assert [fate.decision for fate in dry.copies] == [fate.decision for fate in done.copies]


def test_nothing_goes_while_the_newest_copy_is_damaged(work: Path) -> None:
    place = planted(work, retention="{daily: 1, minimum: 1}")
    copies = _fill(place, 3)
    (victim, *_) = (work / "backups").glob(f"artefacts/*/*/{copies[0]}/*.zst.enc")
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    result = _one(prune(place.system))
    assert result.exit_code is Exit.BAD
    assert _ids(place.repository, work) == copies
    assert f"the newest, {copies[0]}, is damaged" in result.copies[2].decision.reasons


def test_nothing_goes_after_a_backup_that_failed(work: Path) -> None:
    place = planted(work, retention="{daily: 1, minimum: 1}")
    copies = _fill(place, 3)
    record = begin_task(place.system.state_folder, "notes", "files", pid=1, now=clock.now())
    end_task(place.system.state_folder, record, "failed", now=clock.now(), exit_code=1, error="no such folder")
    result = _one(prune(place.system))
    assert _ids(place.repository, work) == copies
    assert "is not good: no such folder" in result.copies[2].decision.reasons[0]


def test_a_manifest_that_cannot_be_believed_stops_everything_and_is_named(work: Path) -> None:
    place = planted(work, retention="{daily: 1, minimum: 1}")
    copies = _fill(place, 3)
    manifest = work / "backups" / "manifests" / f"{copies[1]}.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"notes"', b'"other"', 1))
    result = _one(prune(place.system))
    assert result.exit_code is Exit.BAD
    assert result.problems[0].startswith(f"{copies[1]} cannot be believed")
    assert _objects(place.repository.store) == set(copies)


def test_a_hold_keeps_copies_until_it_is_released_and_a_forged_one_keeps_everything(work: Path) -> None:
    place = planted(work, retention="{daily: 1, minimum: 1}")
    copies = _fill(place, 4)
    begins = clock.now() - DAY - timedelta(hours=2)
    place_hold(place.repository, HoldRecord(name="audit", begins=begins, reason="audit", created=clock.now()))
    result = _one(prune(place.system))
    assert _ids(place.repository, work) == copies[:3], "the two since then, and the one that leads there"
    assert result.copies[1].decision.reasons == ("hold audit: audit",)
    place.repository.store.put(layout.hold_key("audit"), b"{}\n")
    forged = _one(prune(place.system))
    assert forged.exit_code is Exit.BAD
    assert _ids(place.repository, work) == copies[:3]
    place.repository.store.delete(layout.hold_key("audit"))
    assert _one(prune(place.system)).exit_code is Exit.OK
    assert _ids(place.repository, work) == copies[:1]


def test_a_service_at_work_is_left_alone_and_a_second_prune_is_refused(work: Path) -> None:
    place = planted(work, retention="{daily: 1, minimum: 1}")
    copies = _fill(place, 2)
    with hold_lease(place.system.state_folder, "notes", "backup of notes (files)"):
        result = _one(prune(place.system))
    assert (result.exit_code, _ids(place.repository, work)) == (Exit.BUSY, copies)
    with hold_lease(place.system.state_folder, "prune", "prune"), pytest.raises(BusyError):
        prune(place.system)


def test_copies_dated_in_the_future_are_refused(work: Path) -> None:
    place = planted(work, retention="{daily: 1, minimum: 1}")
    copies = _fill(place, 3)
    future = plant([place.repository], clock.now() + 400 * DAY, place.folder / "notes")
    result = _one(prune(place.system))
    assert (result.exit_code, _ids(place.repository, work)) == (Exit.REFUSED, [future, *copies])


def test_objects_that_recoup_did_not_write_and_young_orphans_stay(work: Path) -> None:
    place = planted(work, retention="{daily: 1, minimum: 1}")
    copies = _fill(place, 14)
    store = place.repository.store
    old, young = copies[10], copies[1]
    for one in (old, young):
        store.delete(layout.manifest_key(one))
    folder = layout.artefact_folder("notes", "files", old)
    foreign = ["artefacts/readme.txt", f"{folder}mine.txt", "else/where.zst.enc", "holds/x/y.txt"]
    for key in foreign:
        store.put(key, b"somebody's own")
    result = _one(prune(place.system))
    assert result.orphans_removed == 0, "by the store's clock they were written just now"
    assert {one.place.id for one in result.orphans} == {old, young}
    past = (clock.now() - ORPHAN_AGE - DAY).timestamp()
    _age_files(work / "backups", past)
    again = _one(prune(place.system))
    assert again.orphans_removed == 1
    assert _objects(store) == {copies[0], young}
    assert all(store.get(key) == b"somebody's own" for key in foreign)


def _age_files(folder: Path, instant: float) -> None:
    import os

    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (instant, instant))


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.LOST_ANSWER])
def test_every_storage_operation_failing_once_leaves_whole_copies_and_the_next_run_converges(
    work: Path, fault: Fault
) -> None:
    place = planted(work, retention="{daily: 1, minimum: 1}")
    copies = _fill(place, 3)
    begun = {info.key: place.repository.store.get(info.key) for info in place.repository.store.list()}
    number = 1
    while True:
        store = MemoryStore()
        for key, data in begun.items():
            store.put(key, data)
        whole = replace(place.repository, store=store)
        faulty = FaultyStore(store, fail_call=number, fault=fault)
        place.system.stores = {"local": faulty}
        shutil.rmtree(place.system.state_folder)
        _one(prune(place.system))
        left = _ids(whole, work)
        assert set(copies[:1]) <= set(left), f"{faulty.struck}: something that must stay is gone"
        assert all(_whole(whole, one) for one in left), f"{faulty.struck}"
        place.system.stores = {"local": store}
        assert _one(prune(place.system)).exit_code is Exit.OK, f"{faulty.struck}"
        assert _ids(whole, work) == copies[:1], f"{faulty.struck}"
        assert _objects(store) == set(copies[:1]), f"{faulty.struck}"
        if not faulty.struck:
            break
        number += 1
    assert number > 30, "there are too few operations to mean anything"


def test_copies_that_a_bucket_locks_stay_and_say_until_when(work: Path, s3: S3Server) -> None:
    place = planted(work, retention="{daily: 1, minimum: 1}")
    bucket = s3.new_bucket(lock=True, lock_days=1)
    store = S3Store(
        bucket, endpoint_url=s3.endpoint, region=s3.region, access_key=s3.access_key, secret_key=Secret(s3.secret_key)
    )
    repository = replace(place.repository, store=store)
    place.system.stores = {"local": store}
    newest = clock.now() - timedelta(hours=1)
    copies = [plant([repository], newest - n * DAY, place.folder / "notes") for n in range(2)]
    result = _one(prune(place.system))
    assert result.exit_code is Exit.OK, "a lock is expected"
    assert result.copies[1].decision.reasons[0].startswith("locked by the store until ")
    assert _ids(repository, work) == copies
    assert all(_whole(repository, one) for one in copies)


def test_copies_in_a_bucket_go_and_what_stays_can_be_read(work: Path, s3: S3Server) -> None:
    place = planted(work, retention="{daily: 1, minimum: 1}")
    bucket = s3.new_bucket()
    store = S3Store(
        bucket, endpoint_url=s3.endpoint, region=s3.region, access_key=s3.access_key, secret_key=Secret(s3.secret_key)
    )
    repository = replace(place.repository, store=store)
    place.system.stores = {"local": store}
    newest = clock.now() - timedelta(hours=1)
    copies = [plant([repository], newest - n * DAY, place.folder / "notes") for n in range(3)]
    assert _one(prune(place.system)).exit_code is Exit.OK
    assert _ids(repository, work) == copies[:1]
    assert _objects(store) == {copies[0]}
    assert _whole(repository, copies[0])


def test_wal_goes_up_to_the_base_backup_from_which_the_window_is_reached(work: Path) -> None:
    place = planted(work, retention="{daily: 30, wal: 2d}", service="postgres")
    newest, cluster = clock.now() - timedelta(hours=1), "7412345678901234567"
    archive = WalArchive(place.repository, "postgres", cluster)
    for day in range(6):
        moment = newest - (5 - day) * DAY
        facts = {
            "system_identifier": cluster,
            "timeline": 1,
            "begin_lsn": f"0/{day * 2 + 1}000028",
            "includes_wal": True,
        }
        plant([place.repository], moment, place.folder / "notes", service="postgres", kind="base", facts=facts)
        for half in range(2):
            stamp = moment + half * timedelta(minutes=40)
            archive.put_segment(f"0000000100000000000000{day * 2 + 1 + half:02X}", b"wal" * 50, stamp)
    archive.put_history(2, b"1\t0/3000000\tno recovery target specified\n", newest - 9 * DAY)
    _note_all_good(place)
    dry = _one(prune(place.system, dry_run=True))
    assert (dry.wal[0].expired, dry.wal[0].removed) == (4, 0)
    result = _one(prune(place.system))
    assert result.exit_code is Exit.OK
    names = [entry.name for entry in archive.entries() if isinstance(entry, WalSegment)]
    assert names == [f"0000000100000000000000{number:02X}" for number in range(5, 13)]
    assert any(isinstance(entry, WalHistory) for entry in archive.entries())
    assert _one(prune(place.system)).wal[0].expired == 0


def _note_all_good(place: Planted) -> None:
    repository = place.repository
    Proofs(place.system.state_folder).note(
        ProofRecord(repository=repository.identity, artefact=one, grade=grade, verdict="ok", moment=clock.now())
        for one in _ids(repository, place.folder)
        for grade in ("stored", "intact")
    )


def test_a_prune_killed_at_any_storage_operation_is_finished_by_the_next_one(work: Path) -> None:
    place = planted(work, retention="{daily: 1, minimum: 1}")
    copies = _fill(place, 3)
    killed, number = 0, 30  # what comes before only reads
    while True:
        argv = [sys.executable, "-m", "tests.integration.killed_run", "prune", str(work), "local", str(number)]
        code = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, timeout=120).returncode
        left = _ids(place.repository, work)
        assert copies[0] in left
        assert all(_whole(place.repository, one) for one in left), f"killed at operation {number}"
        if code == 0:
            break
        assert code == -9, "it was killed, and by nothing else"
        killed, number = killed + 1, number + 7
    _one(prune(place.system))
    assert _ids(place.repository, work) == copies[:1]
    assert _objects(place.repository.store) == {copies[0]}
    assert killed > 1
