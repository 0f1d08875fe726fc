"""Backups that die, backups that meet each other, and repositories that are slow, full or somebody else's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from recoup.kernel.errors import (
    BusyError,
    DamageError,
    RecoupError,
    RefusedError,
    StorageError,
    UnknownFormatError,
    WrongKeyError,
)
from recoup.kernel.finding import Verdict
from recoup.repository import copy_writer, layout
from recoup.repository.catalog import read_catalog
from recoup.repository.lease import hold_lease
from recoup.repository.manifest import parse, to_body
from recoup.repository.repository import Repository, create_repository, open_repository
from recoup.repository.seal import Key, authenticate
from recoup.storage.faults import Fault, FaultyStore
from recoup.storage.local import LocalStore
from recoup.storage.memory import MemoryStore
from recoup.verification.grade import Grade
from recoup.verification.verify import verify_artefact
from tests.faults.artefacts import KEY, SampleSource, is_whole, repository, sample_tar, take

ROOT = Path(__file__).parents[2]


def _run_killed(folder: Path, state: Path, number: int) -> int:
    argv = [sys.executable, "-m", "tests.faults.killed_backup", str(folder), str(state), str(number)]
    return subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, timeout=120).returncode


def _leftovers(store: LocalStore, folder: Path, ids: set[str]) -> list[str]:
    stray = [info.key for info in store.list(layout.ARTEFACTS) if not any(one in info.key for one in ids)]
    incoming = folder / ".incoming"
    return stray + [str(path) for path in incoming.iterdir() if path.is_file() and path.name != "lock"]


def test_a_backup_killed_at_any_storage_operation_leaves_a_whole_copy_or_none_and_the_next_one_cleans_up(
    tmp_path: Path,
) -> None:
    folder, state = tmp_path / "repository", tmp_path / "state"
    killed, number = 0, 1
    while True:
        status = _run_killed(folder, state, number)
        if status == 0:
            break
        assert status == -9, "it was killed, and by nothing else"
        killed += 1
        local = repository("local", LocalStore(folder))
        for entry in read_catalog([local], tmp_path / "catalog").entries:
            assert is_whole(local.manifest(entry.id), local), f"killed at operation {number}"
        number += 1 if number < 12 else 4
        assert number < 400, "the series does not end"
    assert killed > 10
    local = repository("local", LocalStore(folder))
    entries = read_catalog([local], tmp_path / "catalog").entries
    assert entries, "the last run was not killed"
    assert all(is_whole(local.manifest(entry.id), local) for entry in entries)
    assert _leftovers(LocalStore(folder), folder, {entry.id for entry in entries}) == []
    assert list((state / "unfinished").iterdir()) == []


def test_two_backups_of_one_service_at_once_are_one_backup_and_one_polite_refusal(tmp_path: Path) -> None:
    local = repository("local", MemoryStore())
    inside, go_on = threading.Event(), threading.Event()
    results: list[object] = []

    def slow() -> None:
        def wait() -> None:
            inside.set()
            assert go_on.wait(60)

        results.append(take(SampleSource(tar=sample_tar(), between=wait), [local], tmp_path))

    thread = threading.Thread(target=slow)
    thread.start()
    try:
        assert inside.wait(60)
        with pytest.raises(BusyError, match=rf"backup of sample \(files\), process {os.getpid()}, since 20"):
            take(SampleSource(tar=sample_tar()), [local], tmp_path)
        # another service is not concerned
        other = take(SampleSource(tar=sample_tar(2), service="other"), [local], tmp_path)
        assert other.outcome.stored_in == ("local",)
    finally:
        go_on.set()
        thread.join(120)
    assert len(results) == 1
    assert len(read_catalog([local], tmp_path / "catalog").entries) == 2


def test_backups_from_two_machines_into_one_repository_do_not_meet(tmp_path: Path) -> None:
    store = MemoryStore()
    local = repository("local", store)
    errors: list[RecoupError] = []

    def run(machine: str, seed: int) -> None:
        try:
            take(SampleSource(tar=sample_tar(seed)), [local], tmp_path / machine)
        except RecoupError as failure:
            errors.append(failure)

    threads = [threading.Thread(target=run, args=(f"machine-{n}", n)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    entries = read_catalog([local], tmp_path / "catalog").entries
    assert len(entries) == 4
    assert all(is_whole(local.manifest(entry.id), local) for entry in entries)


def test_a_lease_ends_with_its_holder(tmp_path: Path) -> None:
    second = hold_lease(tmp_path, "postgres", "another")
    with hold_lease(tmp_path, "postgres", "a test"), pytest.raises(BusyError, match="a test"):
        second.__enter__()
    with hold_lease(tmp_path, "postgres", "a third"):
        pass


def test_a_repository_that_stalls_is_left_behind_and_brought_up_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind, abandon = threading.Event(), copy_writer._Lane.abandon

    def noting(lane: copy_writer._Lane, why: RecoupError) -> None:
        abandon(lane, why)
        left_behind.set()

    monkeypatch.setattr(copy_writer._Lane, "abandon", noting)
    monkeypatch.setattr(copy_writer, "PATIENCE_SECONDS", 2.0)
    monkeypatch.setattr(copy_writer, "QUEUED_BLOCKS", 2)
    first, inner = repository("first", MemoryStore()), MemoryStore()
    second = repository("second", inner)
    stalling = FaultyStore(
        inner, fail_call=1, fault=Fault.SLOW, pause=lambda _seconds: void(left_behind.wait(120)),
        concerns=lambda operation, key: operation == "write",
    )  # fmt: skip
    broken = Repository(name="second", identity=second.identity, created=second.created, store=stalling, key=second.key)
    taken = take(SampleSource(tar=sample_tar()), [first, broken], tmp_path)
    assert left_behind.is_set()
    assert taken.outcome.stored_in == ("first", "second")
    assert is_whole(second.manifest(taken.outcome.manifest.id), second)


def void(_value: object) -> None:
    pass


def test_a_source_that_fails_leaves_nothing_in_any_repository(tmp_path: Path) -> None:
    first, second = repository("first", MemoryStore()), repository("second", MemoryStore())

    def fail() -> None:
        raise StorageError("the source died in the middle")

    with pytest.raises(StorageError, match="died in the middle"):
        take(SampleSource(tar=sample_tar(), between=fail), [first, second], tmp_path)
    for one in (first, second):
        assert list(one.store.list(layout.ARTEFACTS)) == []
        assert list(one.store.list(layout.MANIFESTS)) == []


def _two(tmp_path: Path) -> tuple[LocalStore, Repository, str, str]:
    store = LocalStore(tmp_path / "repository", create=True)
    local = repository("local", store)
    ids = [take(SampleSource(tar=sample_tar(n)), [local], tmp_path).outcome.manifest.id for n in (1, 2)]
    return store, local, ids[0], ids[1]


def test_two_swapped_artefacts_are_noticed_by_their_objects_and_by_their_manifests(tmp_path: Path) -> None:
    store, local, one, two = _two(tmp_path)
    folder = tmp_path / "repository"
    manifests = {identifier: local.manifest(identifier) for identifier in (one, two)}
    (folder / "artefacts/sample/files" / one).rename(folder / "artefacts/sample/files/aside")
    (folder / "artefacts/sample/files" / two).rename(folder / "artefacts/sample/files" / one)
    (folder / "artefacts/sample/files/aside").rename(folder / "artefacts/sample/files" / two)
    for manifest in manifests.values():
        assert verify_artefact(manifest, [local], Grade.INTACT, lambda _: []).verdict is Verdict.FAILED
    first, second = (folder / layout.manifest_key(identifier) for identifier in (one, two))
    content = first.read_bytes()
    shutil.copy(second, first)
    second.write_bytes(content)
    for identifier in (one, two):
        with pytest.raises(DamageError, match="MAC"):
            local.manifest(identifier)
    assert len(read_catalog([local], tmp_path / "catalog").problems) == 2
    assert store.address


def test_a_manifest_with_any_bit_flipped_is_not_believed(tmp_path: Path) -> None:
    _, local, one, _ = _two(tmp_path)
    data = bytearray(local.store.get(layout.manifest_key(one)))
    for position in range(0, len(data), 7):
        changed = bytearray(data)
        changed[position] ^= 1 << (position % 8)
        with pytest.raises((DamageError, WrongKeyError, UnknownFormatError)):
            parse(bytes(changed), local.key, one)
    for length in range(0, len(data), 11):
        with pytest.raises((DamageError, UnknownFormatError)):
            parse(bytes(data[:length]), local.key, one)


def test_an_unknown_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    _, local, one, _ = _two(tmp_path)
    body = {**to_body(local.manifest(one)), "recoup_manifest": 2}
    data = authenticate(KEY, "manifest", layout.manifest_key(one), json.dumps(body).encode() + b"\n")
    with pytest.raises(UnknownFormatError, match="version 2") as refused:
        parse(data, local.key, one)
    assert refused.value.hint is not None
    assert "newer" in refused.value.hint
    wrapped = {**to_body(local.manifest(one)), "key": {"mode": "wrapped"}}
    data = authenticate(KEY, "manifest", layout.manifest_key(one), json.dumps(wrapped).encode() + b"\n")
    with pytest.raises(UnknownFormatError, match="wrapped"):
        parse(data, local.key, one)


def test_a_repository_of_an_unknown_format_is_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    repository("one", store)
    body = {"recoup_repository": 9, "id": "x", "created": "2026-01-01T00:00:00Z"}
    store.put(layout.MARKER, authenticate(KEY, "repository", layout.MARKER, json.dumps(body).encode() + b"\n"))
    with pytest.raises(UnknownFormatError, match="format 9"):
        open_repository("one", store, KEY)


def test_the_wrong_key_is_named_and_nothing_is_listed_or_written(tmp_path: Path) -> None:
    store = MemoryStore()
    repository("one", store)
    before = [info.key for info in store.list()]
    with pytest.raises(WrongKeyError, match=KEY.id[:16]):
        open_repository("one", store, Key.generate())
    assert [info.key for info in store.list()] == before


def test_a_place_with_something_else_in_it_does_not_become_a_repository(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_bytes(b"meow")
    with pytest.raises(RefusedError, match=r"cat\.jpg"):
        create_repository("local", LocalStore(tmp_path / "photos"), KEY)
    assert sorted(path.name for path in (tmp_path / "photos").iterdir() if path.is_file()) == ["cat.jpg"]


def test_the_catalog_is_rebuilt_when_it_is_missing_or_damaged(tmp_path: Path) -> None:
    _, local, one, two = _two(tmp_path)
    cache = tmp_path / "catalog"
    expected = read_catalog([local], cache).entries
    assert {entry.id for entry in expected} == {one, two}
    (file,) = cache.iterdir()
    file.write_bytes(b"this is no database" * 1000)
    assert read_catalog([local], cache).entries == expected
    shutil.rmtree(cache)
    assert read_catalog([local], cache).entries == expected
    local.store.delete(layout.manifest_key(one))
    assert {entry.id for entry in read_catalog([local], cache).entries} == {two}


def test_a_missing_or_truncated_object_is_found_at_the_grade_stored(tmp_path: Path) -> None:
    _, local, one, two = _two(tmp_path)
    folder = tmp_path / "repository"
    manifest = local.manifest(one)
    (folder / manifest.objects[0].key).unlink()
    missing = verify_artefact(manifest, [local], Grade.STORED, lambda _: [])
    assert missing.verdict is Verdict.FAILED
    assert missing.reached is None
    assert any("missing" in finding.detail for finding in missing.findings)
    other = local.manifest(two)
    path = folder / other.objects[1].index.key
    os.truncate(path, path.stat().st_size - 1)
    truncated = verify_artefact(other, [local], Grade.STORED, lambda _: [])
    assert truncated.verdict is Verdict.FAILED
    assert any("should have" in finding.detail for finding in truncated.findings)


def test_a_flipped_bit_is_found_at_the_grade_intact_and_not_before(tmp_path: Path) -> None:
    _, local, one, _ = _two(tmp_path)
    manifest = local.manifest(one)
    path = tmp_path / "repository" / manifest.objects[0].key
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    assert verify_artefact(manifest, [local], Grade.STORED, lambda _: []).reached is Grade.STORED
    found = verify_artefact(manifest, [local], Grade.INTACT, lambda _: [])
    assert found.verdict is Verdict.FAILED
    assert found.reached is Grade.STORED
    assert any(manifest.objects[0].key in finding.subject for finding in found.findings)
