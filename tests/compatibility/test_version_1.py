"""Repositories that were written once, by the first version of the format, and must stay readable for ever.

The files in ``v1/`` are never written again: a change that breaks this test breaks somebody's backups.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from recoup.engines.engine import Content, Member
from recoup.repository import layout
from recoup.repository.manifest import Manifest, parse
from recoup.repository.object_reader import ObjectReader, load_index, scrub
from recoup.repository.repository import open_repository
from recoup.repository.seal import Key, key_id_of
from recoup.storage.memory import MemoryStore
from tests.real import require
from tests.unit.repository.sealed import each_frame_of

V1 = Path(__file__).parent / "v1"
ARTEFACT = "20261123-020000-v1g0dn"
EXPECTED = json.loads((V1 / "expected.json").read_text())
KINDS = ["random-key", "passphrase"]
LONG_NAME = "uploads/" + "long/" * 50 + "name.txt"


def opened(kind: str) -> tuple[Key, MemoryStore, Manifest]:
    key = Key.from_text((V1 / kind / "recoup.key").read_text())
    store = MemoryStore()
    root = V1 / kind / "repository"
    for path in root.rglob("*"):
        if path.is_file():
            store.put(path.relative_to(root).as_posix(), path.read_bytes())
    data = store.get(layout.manifest_key(ARTEFACT))
    assert key_id_of(data) == key.id
    return key, store, parse(data, key, ARTEFACT)


@pytest.mark.parametrize("kind", KINDS)
def test_a_repository_of_version_1_opens_and_its_manifest_says_the_same(kind: str) -> None:
    key, store, manifest = opened(kind)
    assert open_repository("golden", store, key).manifest(ARTEFACT) == manifest
    assert (manifest.system, manifest.service, manifest.kind) == ("hummii", "postgres", "base")
    assert (manifest.key_id, manifest.iterations) == (key.id, 10_000 if kind == "random-key" else 600_000)
    assert manifest.facts == {"system_identifier": "7300000000000000001", "version_num": 150020}
    assert [stored.stream for stored in manifest.objects] == ["base.tar", "app.sql", "empty"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_stream_of_version_1_reads_in_every_way(kind: str) -> None:
    key, store, manifest = opened(kind)
    for stored in manifest.objects:
        index = load_index(store, stored, key=key)
        assert scrub(store, stored.key, index) == stored.stored_bytes
        reader = ObjectReader(store, stored.key, key=key, index=index)
        plain = b"".join(reader.read())
        assert {"sha256": hashlib.sha256(plain).hexdigest(), "bytes": len(plain)} == EXPECTED[stored.stream]
        assert each_frame_of(reader) == plain
        assert b"".join(reader.read(len(plain) // 3, len(plain) // 2)) == plain[len(plain) // 3 :][: len(plain) // 2]


def test_the_members_of_version_1_are_all_there() -> None:
    key, store, manifest = opened("random-key")
    stored = manifest.object_of("base.tar")
    assert stored.content is Content.TAR
    reader = ObjectReader(store, stored.key, key=key, index=load_index(store, stored, key=key))
    members = {member.path: member for member in reader.members()}
    assert {path: (member.kind, member.size_bytes, member.link) for path, member in members.items()} == {
        "base": ("directory", 0, ""),
        "base/5/1259": ("file", 20000, ""),
        "base/5/empty": ("file", 0, ""),
        "pg_tblspc/16400": ("symlink", 0, "/srv/space"),
        "uploads/caf\udce9.txt": ("file", 18, ""),
        LONG_NAME: ("file", 8, ""),
        "again": ("hardlink", 0, "base/5/1259"),
        "global/pg_control": ("file", 8192, ""),
    }
    assert members["base/5/1259"] == Member(
        path="base/5/1259", kind="file", size_bytes=20000, mode=0o600, uid=70, gid=70, mtime=1_795_399_200.5,
        offset=members["base/5/1259"].offset,
    )  # fmt: skip
    name = members[LONG_NAME]
    assert b"".join(reader.read(name.offset, name.size_bytes)) == "Grüße\n".encode()


@pytest.mark.parametrize("kind", KINDS)
def test_stock_tools_read_version_1(kind: str) -> None:
    _, _, manifest = opened(kind)
    openssl = require("openssl")
    key_file = V1 / kind / "recoup.key"
    for stored in manifest.objects:
        options = ["-pbkdf2", "-md", "sha256", "-iter", str(manifest.iterations), "-pass", f"file:{key_file}"]
        packed = subprocess.run(
            [openssl, "enc", "-d", "-aes-256-cbc", *options, "-in", V1 / kind / "repository" / stored.key],
            capture_output=True,
            check=True,
        ).stdout
        expander = require("gunzip" if stored.compression == "gzip" else "zstd")
        plain = subprocess.run([expander, "-dc"], input=packed, capture_output=True, check=True).stdout
        assert hashlib.sha256(plain).hexdigest() == EXPECTED[stored.stream]["sha256"]


def test_the_mac_of_a_manifest_can_be_computed_by_hand_as_the_format_page_says() -> None:
    key_file, folder = V1 / "random-key" / "recoup.key", V1 / "random-key" / "repository"
    script = f"""
        set -eu
        cd {folder}
        hexkey=$({require("openssl")} enc -aes-256-cbc -pbkdf2 -md sha256 -iter 10000 -S 7265636f75704d31 -P \
            -pass file:{key_file} | sed -n 's/^key=//p')
        ( printf 'recoup manifest v1\\nmanifests/{ARTEFACT}.json\\n'; sed '$d' manifests/{ARTEFACT}.json ) |
            openssl dgst -sha256 -mac HMAC -macopt hexkey:$hexkey
        tail -n 1 manifests/{ARTEFACT}.json
    """
    computed, line = subprocess.run(
        ["sh", "-c", script], capture_output=True, check=True, text=True
    ).stdout.splitlines()
    assert computed.split()[-1] == json.loads(line)["authentication"]["mac"]
