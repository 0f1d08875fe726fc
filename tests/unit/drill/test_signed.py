"""A report on a drill in the hands of somebody who has a public key and nothing else."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from recoup.drill.report import document
from recoup.drill.signed import SCHEMA, check_file, check_report, signature_file
from recoup.kernel.errors import DamageError, UsageError
from recoup.kernel.finding import Finding, Verdict, overall
from recoup.repository import layout
from recoup.repository.drill_records import make_record, parse_record
from recoup.repository.seal import Key, authenticate, open_authenticated
from recoup.repository.signature import PublicKey, public_key, read_envelope, sign
from tests.drill_story import KEY, a_report
from tests.real import require

OTHER = Key.from_text("22" * 32)
PUBLIC = public_key(KEY)


def report() -> dict[str, Any]:
    """As ``recoup drill --show --json`` prints it."""
    return json.loads(json.dumps({"schema": SCHEMA, **document(a_report())}))  # type: ignore[no-any-return]


def checked(said: dict[str, Any], trusted: PublicKey | None = PUBLIC) -> list[Finding]:
    return check_report("drill.json", json.dumps(said).encode(), trusted)


def test_a_report_that_says_what_was_signed_is_right_and_names_what_the_signature_does_not_cover() -> None:
    found = checked(report())
    assert [one.verdict for one in found] == [Verdict.OK, Verdict.OK]
    assert "trend" in found[-1].not_checked
    assert "no record was removed" in found[-1].not_checked


@pytest.mark.parametrize(
    "place",
    [
        ("verdict",), ("rto", "healthy"), ("rto", "measured"), ("rto", "objective"), ("rpo", 0, "measured"), ("lost",),
        ("parts", "steps"), ("steps", 0, "verdict"), ("checks", 0, "detail"), ("flows", 0, "verdict"),
        ("not_tested", 0), ("issues", 0, "due"), ("plan", "hash"), ("point", "copies", 0, "digest"),
        ("tiers", 0, "tier"),
    ],
)  # fmt: skip
def test_whatever_is_changed_in_a_signed_report_is_named(place: tuple[str | int, ...]) -> None:
    said = report()
    at: Any = said
    for one in place[:-1]:
        at = at[one]
    at[place[-1]] = "something else"
    *_, last = checked(said)
    assert last.verdict is Verdict.FAILED
    assert f"it differs in {place[0]}" in last.detail


@pytest.mark.parametrize("of", ["steps", "not_tested", "checks", "issues"])
def test_what_is_left_out_of_a_signed_report_or_added_to_a_list_is_noticed(of: str) -> None:
    shorter, longer = report(), report()
    shorter[of] = shorter[of][:-1]
    longer[of] = [*longer[of], longer[of][-1]]
    for said in (shorter, longer):
        assert overall(checked(said)) is Verdict.FAILED
    del shorter[of]
    assert overall(checked(shorter)) is Verdict.FAILED


def test_a_report_that_another_key_signed_is_refused_however_it_calls_itself() -> None:
    record = a_report().record
    said = report()
    forged = make_record(OTHER, "records", record.id, json.loads(_payload(said)) | {"verdict": "ok"})
    said["signed"] = dict(forged.signed or {})
    said["seal"]["public_key"] = public_key(OTHER).pem
    assert overall(checked(said)) is Verdict.FAILED
    said["signed"]["signatures"][0]["keyid"] = str(PUBLIC)
    assert overall(checked(said)) is Verdict.FAILED
    # Right by itself, and nobody has said whose key it is.
    assert {one.check: one.verdict for one in checked(said, None)}["it is signed by the key that is trusted"] is (
        Verdict.UNKNOWN
    )


def _payload(said: dict[str, Any]) -> bytes:
    return base64.b64decode(said["signed"]["payload"])


def test_without_a_trusted_key_a_right_report_is_unknown_and_a_changed_one_failed() -> None:
    assert overall(checked(report(), None)) is Verdict.UNKNOWN
    assert overall(checked(report() | {"verdict": "ok"}, None)) is Verdict.FAILED


@pytest.mark.parametrize(
    "envelope",
    [{}, [], "x", 1, {"payloadType": 1}, {"payloadType": "a", "payload": "%", "signatures": []},
     {"payloadType": "a", "payload": "", "signatures": [{"sig": "AAAA"}]},
     {"payloadType": "a", "payload": "", "signatures": 3}],
)  # fmt: skip
def test_a_mangled_envelope_is_damage_and_no_crash(envelope: Any) -> None:
    assert overall(checked(report() | {"signed": envelope})) is Verdict.FAILED


def test_a_signature_of_another_kind_of_document_does_not_pass_for_that_of_a_drill() -> None:
    said = report()
    other = make_record(KEY, "closings", a_report().record.id, json.loads(_payload(said)))
    said["signed"] = other.signed
    assert overall(checked(said)) is Verdict.FAILED


def test_an_unsigned_report_is_unknown_and_something_else_is_refused() -> None:
    assert overall(checked(report() | {"signed": None})) is Verdict.UNKNOWN
    for content in (b"{", b"[1]", b'{"schema": "recoup.status/1"}'):
        with pytest.raises(UsageError):
            check_report("x.json", content, PUBLIC)


def test_a_record_whose_signature_was_taken_off_or_changed_by_one_who_can_authenticate_is_damage() -> None:
    made = make_record(KEY, "records", "20261102-090000-aaaaaa", {"record": {}})
    where = layout.drill_record_key("records", made.id)
    body = json.loads(open_authenticated(KEY, "drill", where, made.data))
    for change in ({}, {"signature": None}, {"signature": {"value": "AAAA"}}, {"signature": body["signature"], "x": 1}):
        changed = {**{name: value for name, value in body.items() if name != "signature"}, **change}
        data = authenticate(KEY, "drill", where, json.dumps(changed).encode() + b"\n")
        with pytest.raises(DamageError):
            parse_record(KEY, "records", made.id, data)


def test_stock_openssl_checks_a_report_and_a_file_and_refuses_changed_ones(tmp_path: Path) -> None:
    """The commands of docs/how-to/check-a-drill-report.md, with nothing of Recoup's."""
    openssl, said = require("openssl"), report()
    (tmp_path / "drills.pem").write_text(PUBLIC.pem)
    kind, payload = said["signed"]["payloadType"], _payload(said)
    (tmp_path / "signed.bin").write_bytes(b"DSSEv1 %d %s %d " % (len(kind), kind.encode(), len(payload)) + payload)
    (tmp_path / "signed.sig").write_bytes(base64.b64decode(said["signed"]["signatures"][0]["sig"]))
    (tmp_path / "drill.pdf").write_bytes(b"%PDF-1.7 a report")
    signature_file(tmp_path / "drill.pdf").write_bytes(sign(KEY, b"%PDF-1.7 a report"))

    def verify(content: str, signature: str) -> int:
        words = [
            "pkeyutl",
            "-verify",
            "-pubin",
            "-inkey",
            "drills.pem",
            "-rawin",
            "-in",
            content,
            "-sigfile",
            signature,
        ]
        return subprocess.run([openssl, *words], cwd=tmp_path, timeout=120, capture_output=True, check=False).returncode

    assert verify("signed.bin", "signed.sig") == 0
    assert verify("drill.pdf", "drill.pdf.sig") == 0
    for name in ("signed.bin", "drill.pdf"):
        changed = bytearray((tmp_path / name).read_bytes())
        changed[-1] ^= 1
        (tmp_path / name).write_bytes(changed)
    assert verify("signed.bin", "signed.sig") != 0
    assert verify("drill.pdf", "drill.pdf.sig") != 0


def test_a_page_is_checked_with_the_signature_beside_it() -> None:
    content = b"<!doctype html>"
    signature = sign(KEY, content)
    ways = [
        (content, signature, PUBLIC, Verdict.OK),
        (content + b" ", signature, PUBLIC, Verdict.FAILED),
        (content, signature, public_key(OTHER), Verdict.FAILED),
        (content, b"short", PUBLIC, Verdict.FAILED),
        (content, None, PUBLIC, Verdict.UNKNOWN),
        (content, signature, None, Verdict.UNKNOWN),
    ]
    for given, beside, trusted, verdict in ways:
        assert overall(check_file("drill.html", given, beside, trusted)) is verdict


def test_a_public_key_tells_nothing_of_the_key_and_reads_back() -> None:
    assert PublicKey.from_pem(PUBLIC.pem.encode()) == PUBLIC
    assert KEY.text.reveal() not in PUBLIC.pem
    assert KEY.id not in str(PUBLIC)
    assert str(PUBLIC) != str(public_key(OTHER))
    assert read_envelope(report()["signed"]).is_signed_by(PUBLIC)
    for text in (b"", b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n", KEY.text.reveal().encode()):
        with pytest.raises(UsageError):
            PublicKey.from_pem(text)
