"""The journal and the lease of a recovery, written once by the first version of their form: they must stay readable.

The files in ``runs-v1/`` are never written again.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from recoup.recovery.attained import attained
from recoup.recovery.journal import parse_journal
from recoup.recovery.progress import read_progress
from recoup.repository import layout
from recoup.repository.repository import Repository, open_repository
from recoup.repository.run_journals import read_journal, runs_in
from recoup.repository.run_lease import look
from recoup.repository.seal import Key
from recoup.storage.memory import MemoryStore
from tests.real import require

V1 = Path(__file__).parent / "runs-v1"
KEY = Key.from_text((V1 / "recoup.key").read_text())
RUN = "20261123-172649-jv7agx"
LAST = "f582bbd6c6cc152bec31f41fb62b6d59dfbe2a0d3ed7fb3e1236dccdef1f72b4"


@pytest.fixture
def repository() -> Repository:
    store = MemoryStore()
    for path in (V1 / "repository").rglob("*"):
        if path.is_file():
            store.put(path.relative_to(V1 / "repository").as_posix(), path.read_bytes())
    return open_repository("golden", store, KEY)


def test_a_journal_of_version_1_says_the_same_for_ever(repository: Repository) -> None:
    assert dict(runs_in(repository, "marketplace")) == {RUN: layout.run_journal("marketplace", RUN)}
    lines, _ = parse_journal(read_journal(repository, layout.run_journal("marketplace", RUN)))
    assert (len(lines), lines[-1].digest) == (31, LAST)
    assert [line.who for line in lines if line.event == "leased"] == ["alice", "bob"]
    progress = read_progress(lines)
    assert progress is not None
    assert (progress.situation, progress.ended) == ("database-corruption", "unknown")
    assert (progress.steps["confirm"].standing, progress.steps["swap-postgres"].approved_by) == ("skipped", "bob")
    assert attained(lines) is not None


def test_a_lease_of_version_1_says_the_same_for_ever(repository: Repository) -> None:
    seen = look(repository, "marketplace")
    assert seen.lease is not None
    assert (seen.generation, seen.lease.who, seen.lease.released) == (2, "bob", True)
    assert (seen.lease.presence.host, seen.lease.presence.pid) == ("web-1", 4711)


def test_its_lines_are_read_as_the_format_says_with_openssl_and_zstd_alone() -> None:
    openssl, zstd = require("openssl"), require("zstd")
    (folder,) = (V1 / "repository").glob(f"runs/*/{RUN}")
    newest = [path for path in sorted(folder.iterdir()) if path.name.startswith("00000002-")]
    text = b""
    for path in newest:
        words = [openssl, "enc", "-d", "-aes-256-cbc", "-pbkdf2", "-pass", f"file:{V1 / 'recoup.key'}", "-in", path]
        packed = subprocess.run(words, check=True, capture_output=True).stdout
        text += subprocess.run([zstd, "-dc"], input=packed, check=True, capture_output=True).stdout
    before = ""
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        digest, body = line[:64].decode(), line[65:]
        assert hashlib.sha256(before.encode() + body).hexdigest() == digest
        assert json.loads(body)["n"] == number
        before = digest
    assert before == LAST
