"""An S3 service that answers with errors, late, in halves or not at all, between ``recoup`` and a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from recoup.demo.servers import S3Server
from tests.acceptance.workplace import Workplace
from tests.faults.s3_proxy import Act, Rule, S3Proxy

_FOR_EVER = 1_000_000


@pytest.fixture
def proxied(work: Workplace, s3: S3Server) -> Iterator[tuple[Workplace, S3Proxy]]:
    """Two repositories, a folder and a bucket behind the proxy, and some files to copy."""
    source = work.folder / "data"
    source.mkdir()
    for number in range(3):
        (source / f"file {number}").write_bytes(bytes(range(256)) * (1000 + number))
    work.services["files"] = "{engine: files, paths: [data]}"
    with S3Proxy(s3.endpoint) as proxy:
        work.add_bucket(s3, endpoint=proxy.endpoint)
        work.write_plan()
        yield work, proxy


def _in_the_way(act: Act, **more: object) -> Rule:
    return Rule(act=act, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rule",
    [
        _in_the_way(Act.ANSWER, method="PUT", contains="artefacts", times=2, status=503, code="SlowDown"),
        _in_the_way(Act.ANSWER, method="PUT", contains="manifests", times=1),
        _in_the_way(Act.DROP, method="PUT", times=1),
        _in_the_way(Act.LOSE, method="PUT", contains="manifests", times=1),
        _in_the_way(Act.LOSE, method="PUT", contains="artefacts", times=1),
        _in_the_way(Act.CUT, method="GET", contains="artefacts", times=2, at_byte=700),
        _in_the_way(Act.DELAY, times=3, seconds=1.0),
    ],
    ids=lambda rule: f"{rule.act.value} {rule.method} {rule.contains}".strip(),
)
def test_a_passing_fault_of_s3_does_not_fail_a_backup(proxied: tuple[Workplace, S3Proxy], rule: Rule) -> None:
    work, proxy = proxied
    work.backup()  # the repositories are there
    proxy.rules.append(rule)
    artefact = work.backup()
    assert rule.times == 0, "the fault never came"
    assert work.listed()[artefact] == ["local", "offsite"]
    assert work.json("verify", artefact)["artefacts"][0]["verdict"] == "ok"


@pytest.mark.parametrize(("method", "contains"), [("PUT", "artefacts"), ("PUT", "manifests"), ("GET", "artefacts")])
def test_an_s3_that_keeps_failing_does_not_lose_the_copy_in_the_folder(
    proxied: tuple[Workplace, S3Proxy], method: str, contains: str
) -> None:
    work, proxy = proxied
    work.backup()
    rule = Rule(act=Act.ANSWER, method=method, contains=contains, times=_FOR_EVER, status=500)
    proxy.rules.append(rule)
    document = work.json("backup", expect=1)
    (copy,) = document["copies"]
    assert copy["repositories"] == ["local"]
    failure = copy["failed_repositories"]["offsite"]
    assert "500" in failure["message"]
    assert failure["hint"]
    proxy.rules.clear()
    assert work.listed()[copy["id"]] == ["local"]
    assert work.json("verify", copy["id"])["artefacts"][0]["verdict"] == "ok"
    artefact = work.backup()
    assert work.listed()[artefact] == ["local", "offsite"]


def test_an_s3_that_does_not_answer_is_unknown_and_the_folder_is_used(proxied: tuple[Workplace, S3Proxy]) -> None:
    work, proxy = proxied
    artefact = work.backup()
    proxy.rules.append(Rule(act=Act.ANSWER, times=_FOR_EVER, status=503, code="SlowDown"))
    listed = work.recoup("list", "--json", expect=4)
    assert [one["id"] for one in listed.json["artefacts"]] == [artefact]
    assert "503" in listed.json["unreachable"]["offsite"]["message"]
    assert work.json("verify", artefact, expect=4)["unreachable"]["offsite"]["hint"]
    ended = work.recoup("restore", artefact, "--destination", "out")
    assert "offsite: not read" in ended.err
    assert (work.folder / "out" / "data" / "file 1").exists()
    only = work.recoup("restore", artefact, "--from", "offsite", "--destination", "other", expect=1)
    assert "503" in only.err
    assert not (work.folder / "other").exists()


@pytest.mark.parametrize("act", [Act.CUT, Act.ANSWER])
def test_a_restore_whose_primary_fails_in_the_middle_goes_on_from_the_other_and_says_so(
    work: Workplace, s3: S3Server, act: Act
) -> None:
    with S3Proxy(s3.endpoint) as proxy:
        del work.repositories["local"]
        work.add_bucket(s3, endpoint=proxy.endpoint)
        work.repositories["local"] = "{path: backups}"  # after the bucket: the bucket is primary
        (work.folder / "data").mkdir()
        (work.folder / "data" / "big").write_bytes(bytes(range(256)) * 4000)
        work.services["files"] = "{engine: files, paths: [data]}"
        work.write_plan()
        artefact = work.backup()
        proxy.rules.append(Rule(act=act, method="GET", contains="artefacts", times=_FOR_EVER, at_byte=20))
        ended = work.recoup("restore", artefact, "--destination", "out")
        assert "read from another repository, because: " in ended.out
        assert (work.folder / "out" / "data" / "big").read_bytes() == (work.folder / "data" / "big").read_bytes()
        only = work.recoup("restore", artefact, "--from", "offsite", "--destination", "alone", expect=1)
        assert "hint: " in only.err
        assert not (work.folder / "alone" / "data" / "big").exists()


def test_wrong_credentials_are_said_to_be_that_and_never_shown(work: Workplace, s3: S3Server) -> None:
    work.add_bucket(s3)
    (work.folder / "data").mkdir()
    work.services["files"] = "{engine: files, paths: [data]}"
    work.write_plan()
    wrong = {"S3_SECRET_KEY": "not-the-secret-key-at-all"}
    work.secrets.add(wrong["S3_SECRET_KEY"])
    ended = work.recoup("backup", environment=wrong, expect=1)
    assert "offsite" in ended.err
    assert "hint: " in ended.err
    assert list(work.listed("--from", "local").values()) == [["local"]]
    missing = {key: value for key, value in work.environment.items() if key != "S3_SECRET_KEY"}
    work.environment = missing
    ended = work.recoup("list", "--from", "offsite", expect=2)
    assert "S3_SECRET_KEY has no value" in ended.err


def test_a_repository_in_a_file_or_on_a_read_only_place_is_named(work: Workplace) -> None:
    (work.folder / "data").mkdir()
    work.services["files"] = "{engine: files, paths: [data]}"
    work.repositories["second"] = "{path: recoup.yaml/backups}"
    work.write_plan()
    document = work.json("backup", expect=1)
    (copy,) = document["copies"]
    assert copy["repositories"] == ["local"]
    assert str(Path("recoup.yaml") / "backups") in copy["failed_repositories"]["second"]["message"]
