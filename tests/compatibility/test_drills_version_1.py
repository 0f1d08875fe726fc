"""Records of drills that were written once, by the first version of their form, and must stay readable for ever.

The files in ``drills-v1/`` are never written again: evidence that cannot be read any more is none.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import subprocess
from datetime import timedelta
from pathlib import Path

from recoup.drill.book import proof_file, read_book
from recoup.kernel.finding import Verdict
from recoup.repository.repository import Repository, open_repository
from recoup.repository.seal import Key
from recoup.storage.memory import MemoryStore
from tests.real import require

V1 = Path(__file__).parent / "drills-v1"
DRILL = "20261102-090000-aaaaaa"
RECORD = f"drills/records/{DRILL}.json"
PROOF = "drills/proofs/20261120-090000-cccccc.enc"


def opened() -> Repository:
    store = MemoryStore()
    root = V1 / "repository"
    for path in root.rglob("*"):
        if path.is_file():
            store.put(path.relative_to(root).as_posix(), path.read_bytes())
    return open_repository("golden", store, Key.from_text((V1 / "recoup.key").read_text()))


def test_a_drill_of_version_1_says_the_same_for_ever() -> None:
    repository = opened()
    book = read_book([repository])
    (record,) = book.records
    assert book.problems == ()
    assert book.signed == {}
    assert (record.id, record.system, record.situation, record.verdict) == (
        DRILL, "marketplace", "server-loss", Verdict.FAILED,
    )  # fmt: skip
    assert (record.rto.measured, record.rto.machine, record.lost) == (
        timedelta(minutes=90), timedelta(minutes=60), timedelta(seconds=40),
    )  # fmt: skip
    assert [one.title for one in record.steps] == [
        "restore postgres", "point the name at the new server", "start the services",
    ]  # fmt: skip
    assert [one.issue.text for one in book.issues] == ["recovery took 1 h 30 min, 1 h is promised"]
    assert book.issues[0].closing is not None
    assert book.issues[0].closing.because == "a second disk"
    assert proof_file([repository], book.issues[0].closing) == b"the invoice of the new disk\n"


def test_the_seal_and_the_proof_open_as_the_format_says_without_recoup() -> None:
    key = (V1 / "recoup.key").read_text().strip()
    authentication = hashlib.pbkdf2_hmac("sha256", key.encode(), b"recoupM1", 10_000, 48)[:32]
    body, _, last = (V1 / "repository" / RECORD).read_bytes().rstrip(b"\n").rpartition(b"\n")
    said = hmac.new(authentication, f"recoup drill v1\n{RECORD}\n".encode() + body + b"\n", "sha256").hexdigest()
    assert json.loads(last)["authentication"]["mac"] == said
    closing = json.loads(
        re.sub(rb"\n[^\n]+\n$", b"\n", next((V1 / "repository/drills/closings").iterdir()).read_bytes())
    )
    stored = V1 / "repository" / PROOF
    assert closing["closing"]["proof"]["stored_sha256"] == hashlib.sha256(stored.read_bytes()).hexdigest()
    open_it = ["enc", "-d", "-aes-256-cbc", "-pbkdf2", "-pass", f"file:{V1 / 'recoup.key'}", "-in", stored]
    plain = subprocess.run([require("openssl"), *open_it], check=True, capture_output=True, timeout=120).stdout
    assert plain == b"the invoice of the new disk\n"
