"""Records of drills in repositories: written once, in all of them, authenticated, and named when they cannot be
believed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from recoup.drill.book import file_proof, level, proof_file, read_book, write_closing, write_drill
from recoup.drill.issues import Closing, ClosingProof
from recoup.kernel.errors import DamageError, RefusedError, TransientStorageError, UsageError
from recoup.kernel.finding import Verdict
from recoup.repository import layout
from recoup.repository.drill_records import make_record, put_record
from recoup.repository.repository import Repository, create_repository
from recoup.repository.seal import Key
from recoup.storage.faults import Fault, FaultyStore
from recoup.storage.memory import MemoryStore
from tests.drills import DECLARED, a_drill, issue

KEY = Key.from_text("11" * 32)
DRILL = a_drill(issues=(issue(1), issue(2, text="nobody knew the password")))
LATER = a_drill(name="20261207-090000-bbbbbb", declared=DECLARED + timedelta(days=35))
WHERE = layout.drill_record_key("records", DRILL.id)


def a_repository(name: str, key: Key = KEY) -> Repository:
    return create_repository(name, MemoryStore(), key)


@pytest.fixture
def local() -> Repository:
    return a_repository("local")


@pytest.fixture
def offsite() -> Repository:
    return a_repository("offsite")


def closing_of(number: int, **changes: object) -> Closing:
    proof = ClosingProof(kind="drill", name=LATER.id, sha256="0" * 64)
    values = {
        "id": f"20261208-10000{number}-cccccc", "issue": f"{DRILL.id}.{number}",
        "closed": DECLARED + timedelta(days=36), "by": "Ada", "because": "a larger disk", "proof": proof,
    }  # fmt: skip
    return Closing(**{**values, **changes})  # type: ignore[arg-type]


def test_a_drill_is_in_every_repository_and_comes_back_as_it_was(local: Repository, offsite: Repository) -> None:
    for record in (LATER, DRILL):
        assert write_drill([local, offsite], record) == {"local": None, "offsite": None}
    book = read_book([local, offsite], system="marketplace")
    assert book.records == (LATER, DRILL)
    assert book.places[DRILL.id] == ("local", "offsite")
    assert book.verdict is Verdict.OK
    assert read_book([local], system="another").records == ()
    assert read_book([local], newest=1).records == (LATER,)


def test_the_stored_form_is_readable_text_that_carries_its_verdict(local: Repository) -> None:
    write_drill([local], DRILL)
    body, seal_line = local.store.get(WHERE).decode().rsplit("\n", 2)[:2]
    said = json.loads(body)
    assert (said["recoup_drill"], said["id"], said["verdict"]) == (2, DRILL.id, "ok")
    assert said["record"]["steps"][0]["title"] == "restore postgres"
    assert "HMAC-SHA256" in seal_line


def test_a_record_is_never_changed_and_the_same_again_is_fine(local: Repository) -> None:
    write_drill([local], DRILL)
    assert write_drill([local], DRILL) == {"local": None}
    outcome = write_drill([local], replace(DRILL, declared_by="somebody else"))
    assert isinstance(outcome["local"], RefusedError)
    assert read_book([local]).records == (DRILL,)


@pytest.mark.parametrize("way", ["flipped", "cut", "empty", "moved", "other key", "made up"])
def test_a_record_that_was_damaged_or_forged_is_named_and_taken_from_where_it_is_right(
    way: str, local: Repository, offsite: Repository
) -> None:
    write_drill([local, offsite], DRILL)
    data = local.store.get(WHERE)
    forged = make_record(Key.from_text("22" * 32), "records", DRILL.id, {"record": {}}).data
    where = layout.drill_record_key("records", LATER.id) if way == "moved" else WHERE
    bytes_of = {"flipped": data.replace(b"Ada", b"Eve"), "cut": data[:-20], "empty": b"", "other key": forged,
                "made up": b'{"recoup_drill": 1, "verdict": "ok"}\n'}  # fmt: skip
    local.store.put(where, bytes_of.get(way, data))
    book = read_book([local, offsite])
    assert book.records == (DRILL,)
    assert [(one.repository, one.key) for one in book.problems] == [("local", where)]
    assert book.verdict is Verdict.FAILED


def test_an_authentic_record_of_another_content_and_one_of_a_newer_recoup_are_named(
    local: Repository, offsite: Repository
) -> None:
    write_drill([local], DRILL)
    write_drill([offsite], replace(DRILL, declared_by="somebody else"))
    (two,) = read_book([local, offsite]).problems
    assert "another one than in local" in two.what
    put_record(local, "records", make_record(KEY, "records", LATER.id, {"record": {"nothing": 1}}))
    unknown = read_book([local]).problems
    assert [(one.verdict, one.repository) for one in unknown] == [(Verdict.UNKNOWN, "local")]
    newer = make_record(KEY, "records", LATER.id, {"record": {}, "recoup_drill": 3})
    local.store.put(layout.drill_record_key("records", LATER.id), newer.data)
    assert "version 3" in read_book([local]).problems[0].what
    local.store.put("drills/records/notes.txt", b"hello")
    assert {one.key for one in read_book([local]).problems} >= {"drills/records/notes.txt"}


class Away(MemoryStore):
    """A store that does not answer while ``away``; it also keeps nothing when ``forgets``."""

    away = True

    def list(self, prefix: str = ""):  # type: ignore[no-untyped-def]
        if self.away:
            raise TransientStorageError("no route to host")
        return super().list(prefix)

    def put(self, key: str, data: bytes, *, if_absent: bool = False):  # type: ignore[no-untyped-def]
        if self.away:
            raise TransientStorageError("no route to host")
        return super().put(key, data, if_absent=if_absent)


def test_a_repository_that_was_away_is_named_and_gets_what_it_lacks_later(local: Repository) -> None:
    store = Away()
    store.away = False
    offsite = create_repository("offsite", store, KEY)
    store.away = True
    outcome = write_drill([local, offsite], DRILL)
    assert outcome["local"] is None
    assert isinstance(outcome["offsite"], TransientStorageError)
    book = read_book([local, offsite])
    assert book.records == (DRILL,)
    assert list(book.failed) == ["offsite"]
    assert book.verdict is Verdict.UNKNOWN
    store.away = False
    proof, sealed = file_proof(local, "disk.txt", b"the new disk")
    write_closing([local], closing_of(2, proof=proof), sealed)
    assert level([local, offsite]) == {"local": 0, "offsite": 2}
    assert level([local, offsite]) == {"local": 0, "offsite": 0}
    assert read_book([offsite]).records == (DRILL,)
    assert read_book([offsite]).issues[1].closing == closing_of(2, proof=proof)
    assert proof_file([offsite], closing_of(2, proof=proof)) == b"the new disk"


def test_an_issue_is_open_until_its_closing_is_stored_with_the_file_that_proves_it(
    local: Repository, offsite: Repository
) -> None:
    write_drill([local, offsite], DRILL)
    assert [one.is_open for one in read_book([local]).issues] == [True, True]
    content = b"\x89PNG a photograph of the new disk"
    proof, sealed = file_proof(local, "disk.png", content)
    closing = closing_of(1, proof=proof)
    assert write_closing([local, offsite], closing, sealed) == {"local": None, "offsite": None}
    first, second = read_book([local, offsite]).issues
    assert first.closing == closing
    assert second.is_open
    assert proof_file([local], closing) == content
    stored = local.store.get(layout.drill_proof_key(closing.id))
    assert b"photograph" not in stored
    local.store.put(layout.drill_proof_key(closing.id), offsite.store.get(layout.drill_proof_key(closing.id))[:-16])
    assert proof_file([local, offsite], closing) == content
    with pytest.raises(DamageError):
        proof_file([local], replace(closing, proof=replace(proof, stored_sha256="0" * 64)))


def test_a_drill_is_found_by_latest_by_its_id_or_by_how_that_begins(local: Repository) -> None:
    with pytest.raises(UsageError, match="no record of a drill"):
        read_book([local]).find("latest")
    for record in (DRILL, LATER):
        write_drill([local], record)
    book = read_book([local])
    assert book.find("latest") == LATER
    assert book.find("20261102") == DRILL
    assert book.find(DRILL.id) == DRILL
    with pytest.raises(UsageError, match="2 drills"):
        book.find("2026")
    with pytest.raises(UsageError, match="no drill"):
        book.find("1999")
    assert book.find_issue(f"{DRILL.id}.2").issue.text == "nobody knew the password"
    with pytest.raises(UsageError, match="no issue"):
        book.find_issue("x.1")


def test_a_record_without_bound_is_refused(local: Repository) -> None:
    outcome = write_drill([local], replace(DRILL, stopped="x" * (17 << 20)))
    assert isinstance(outcome["local"], RefusedError)


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.LOST_ANSWER, Fault.FLIP])
@pytest.mark.parametrize("call", [1, 2])
def test_whatever_fails_once_while_a_record_is_stored_it_is_there_whole_or_said_not_to_be(
    fault: Fault, call: int, local: Repository
) -> None:
    offsite = create_repository("offsite", MemoryStore(), KEY)
    faulty = FaultyStore(offsite.store, fail_call=call, fault=fault, concerns=lambda _, key: key.startswith("drills/"))
    outcome = write_drill([local, replace(offsite, store=faulty)], DRILL)
    assert faulty.struck, "the fault was met"
    assert outcome["local"] is None
    book = read_book([offsite])
    if outcome["offsite"] is None:
        assert book.records == (DRILL,)
    assert book.records in ((), (DRILL,))
    if book.problems:
        assert isinstance(outcome["offsite"], DamageError)
    # said again, it is right in the end, or what is wrong there is named
    again = write_drill([local, offsite], DRILL)
    assert again["offsite"] is None or read_book([offsite]).problems
    assert read_book([local, offsite]).records == (DRILL,)
