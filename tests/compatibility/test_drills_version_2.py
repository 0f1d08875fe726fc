"""Signed records of drills, written once by the second version of their form: they must stay readable and checkable.

The files in ``drills-v2/`` are never written again.
"""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from recoup.drill.book import read_book
from recoup.kernel.finding import Verdict
from recoup.repository.repository import open_repository
from recoup.repository.seal import Key
from recoup.repository.signature import public_key, read_envelope
from recoup.storage.memory import MemoryStore
from tests.real import require

V2 = Path(__file__).parent / "drills-v2"
RECORD = "drills/records/20261207-090000-bbbbbb.json"
CLOSING = "drills/closings/20261220-090000-dddddd.json"
KEY = Key.from_text((V2 / "recoup.key").read_text())


def test_a_signed_drill_of_version_2_says_the_same_for_ever() -> None:
    store = MemoryStore()
    for path in (V2 / "repository").rglob("*"):
        if path.is_file():
            store.put(path.relative_to(V2 / "repository").as_posix(), path.read_bytes())
    book = read_book([open_repository("golden", store, KEY)])
    (record,) = book.records
    assert book.problems == ()
    assert (record.id, record.situation, record.verdict) == ("20261207-090000-bbbbbb", "server-loss", Verdict.FAILED)
    assert [(one.issue.id, one.is_open) for one in book.issues] == [("20261207-090000-bbbbbb.1", False)]
    assert read_envelope(book.signed[record.id]).is_signed_by(public_key(KEY))
    assert public_key(KEY).pem == (V2 / "drills.pem").read_text()


@pytest.mark.parametrize(
    ("where", "kind"),
    [(RECORD, "application/vnd.recoup.drill+json"), (CLOSING, "application/vnd.recoup.drill-closing+json")],
)
def test_the_signature_checks_as_the_format_says_with_openssl_and_the_public_key_alone(
    where: str, kind: str, tmp_path: Path
) -> None:
    body, _, _ = (V2 / "repository" / where).read_bytes().rstrip(b"\n").rpartition(b"\n")
    document: dict[str, Any] = json.loads(body)
    signature = document.pop("signature")
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    (tmp_path / "signed.bin").write_bytes(f"DSSEv1 {len(kind)} {kind} {len(text)} ".encode() + text)
    (tmp_path / "signed.sig").write_bytes(base64.b64decode(signature["value"]))
    words = [
        "pkeyutl", "-verify", "-pubin", "-inkey", V2 / "drills.pem", "-rawin",
        "-in", tmp_path / "signed.bin", "-sigfile", tmp_path / "signed.sig",
    ]  # fmt: skip
    subprocess.run([require("openssl"), *words], check=True, timeout=120, capture_output=True)
