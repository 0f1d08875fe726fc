"""Every single storage operation of a backup fails once: number 1, then 2, then 3, until a run meets no fault."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from recoup.backup.take import Taken
from recoup.kernel.errors import DamageError, RecoupError, StorageError
from recoup.kernel.finding import Verdict
from recoup.repository.catalog import read_catalog
from recoup.repository.copy_reader import ArtefactReader
from recoup.repository.repository import Repository
from recoup.storage.faults import Fault, FaultyStore
from recoup.storage.local import LocalStore
from recoup.storage.memory import MemoryStore
from recoup.storage.object_store import ObjectStore
from recoup.verification.grade import Grade
from recoup.verification.verify import verify_artefact
from tests.faults.artefacts import SampleSource, is_whole, repository, sample_tar, take

LIMIT = 400  #: far more operations than one backup of the sample has


def _inner(kind: str, folder: Path) -> ObjectStore:
    return MemoryStore() if kind == "memory" else LocalStore(folder, create=True)


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.LOST_ANSWER, Fault.CUT, Fault.FLIP])
def test_a_failing_operation_in_the_only_repository_never_leaves_a_wrong_or_half_copy(
    tmp_path: Path, fault: Fault
) -> None:
    source = SampleSource(tar=sample_tar())
    for number in range(1, LIMIT):
        inner = MemoryStore()
        whole = repository("only", inner)
        faulty = FaultyStore(inner, fail_call=number, fault=fault, seed=number)
        broken = Repository(name="only", identity=whole.identity, created=whole.created, store=faulty, key=whole.key)
        taken: Taken | None = None
        with contextlib.suppress(StorageError, DamageError):
            taken = take(source, [broken], tmp_path / f"state-{number}")
        if not faulty.struck:
            assert taken is not None
            assert number > 20, "the sample has too few operations to mean anything"
            return
        catalog = read_catalog([whole], tmp_path / f"catalog-{number}")
        if taken is None:
            assert catalog.entries == (), f"operation {faulty.struck}: failed, and yet there is an artefact"
        else:
            assert [entry.id for entry in catalog.entries] == [taken.outcome.manifest.id]
        for entry in catalog.entries:
            assert is_whole(whole.manifest(entry.id), whole), f"operation {faulty.struck}"
        assert catalog.problems == ()
    pytest.fail("no run without a fault: the series does not end")


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_a_failing_operation_in_the_second_repository_never_loses_the_first(tmp_path: Path, kind: str) -> None:
    source = SampleSource(tar=sample_tar())
    for number in range(1, LIMIT):
        first = repository("first", MemoryStore())
        inner = _inner(kind, tmp_path / f"second-{number}")
        second = repository("second", inner)
        faulty = FaultyStore(inner, fail_call=number)
        broken = Repository(
            name="second", identity=second.identity, created=second.created, store=faulty, key=second.key
        )
        taken = take(source, [first, broken], tmp_path / f"state-{number}")
        assert "first" in taken.outcome.stored_in
        assert is_whole(first.manifest(taken.outcome.manifest.id), first)
        if not faulty.struck:
            assert taken.outcome.stored_in == ("first", "second")
            return
        if "second" in taken.outcome.stored_in:
            assert is_whole(second.manifest(taken.outcome.manifest.id), second), f"operation {faulty.struck}"
        else:
            assert taken.outcome.failed["second"].message
            assert read_catalog([second], tmp_path / f"catalog-{number}").entries == ()
    pytest.fail("no run without a fault: the series does not end")


def test_a_repository_that_stumbles_once_while_the_copy_streams_is_brought_up_from_the_other(tmp_path: Path) -> None:
    first, inner = repository("first", MemoryStore()), MemoryStore()
    second = repository("second", inner)
    stumbling = FaultyStore(inner, fail_call=1, concerns=lambda operation, key: operation == "write")
    broken = Repository(
        name="second", identity=second.identity, created=second.created, store=stumbling, key=second.key
    )
    taken = take(SampleSource(tar=sample_tar()), [first, broken], tmp_path)
    assert stumbling.struck
    assert taken.outcome.stored_in == ("first", "second")
    assert is_whole(second.manifest(taken.outcome.manifest.id), second)


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.CUT, Fault.FLIP])
def test_a_failing_operation_while_reading_gives_an_error_or_the_exact_bytes(tmp_path: Path, fault: Fault) -> None:
    tar = sample_tar()
    inner = MemoryStore()
    whole = repository("only", inner)
    taken = take(SampleSource(tar=tar), [whole], tmp_path)
    failed = 0
    for number in range(1, LIMIT):
        faulty = FaultyStore(inner, fail_call=number, fault=fault, seed=number)
        broken = Repository(name="only", identity=whole.identity, created=whole.created, store=faulty, key=whole.key)
        try:
            manifest = broken.manifest(taken.outcome.manifest.id)
            content = b"".join(ArtefactReader(manifest, [broken]).read("sample.tar"))
        except RecoupError:
            failed += 1
        else:
            assert content == tar, f"operation {faulty.struck}: wrong bytes and no error"
        if not faulty.struck:
            assert failed >= 3
            return
    pytest.fail("no run without a fault: the series does not end")


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.FLIP])
def test_what_one_repository_cannot_give_comes_from_the_other(tmp_path: Path, fault: Fault) -> None:
    tar = sample_tar()
    good, bad_inner = repository("good", MemoryStore()), MemoryStore()
    bad = repository("bad", bad_inner)
    taken = take(SampleSource(tar=tar), [bad, good], tmp_path)
    manifest = taken.outcome.manifest
    faulty = FaultyStore(bad_inner, share=0.5, fault=fault, seed=7)
    broken = Repository(name="bad", identity=bad.identity, created=bad.created, store=faulty, key=bad.key)
    reader = ArtefactReader(manifest, [broken, good])
    assert b"".join(reader.read("sample.tar")) == tar
    pieces: dict[int, bytes] = {}
    reader.each_frame("sample.tar", pieces.__setitem__)
    assert b"".join(pieces[start] for start in sorted(pieces)) == tar
    assert faulty.struck
    assert reader.passed_over(), "what came from elsewhere is said"


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.FLIP, Fault.CUT])
def test_verification_never_says_ok_while_an_operation_lies(tmp_path: Path, fault: Fault) -> None:
    inner = MemoryStore()
    whole = repository("only", inner)
    manifest = take(SampleSource(tar=sample_tar()), [whole], tmp_path).outcome.manifest
    bad = 0
    for number in range(1, LIMIT):
        faulty = FaultyStore(inner, fail_call=number, fault=fault, seed=number)
        broken = Repository(name="only", identity=whole.identity, created=whole.created, store=faulty, key=whole.key)
        verification = verify_artefact(manifest, [broken], Grade.INTACT, lambda _: [])
        if not faulty.struck:
            assert verification.verdict is Verdict.OK
            assert verification.reached is Grade.INTACT
            assert bad >= 5
            return
        if fault is Fault.ERROR:
            assert verification.verdict is not Verdict.OK, f"operation {faulty.struck}"
        bad += verification.verdict is not Verdict.OK
    pytest.fail("no run without a fault: the series does not end")
