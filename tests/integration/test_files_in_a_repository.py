"""File sets through a real repository: sealed, indexed, read back, checked, restored."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recoup.engines.files.check import check_files_copy
from recoup.engines.files.copy import take_files
from recoup.engines.files.restore import differences, restore_files
from recoup.kernel.clock import now
from recoup.kernel.finding import Verdict, overall
from recoup.kernel.ids import new_id
from recoup.repository.copy_reader import ArtefactReader
from recoup.repository.copy_writer import ArtefactWriter, Header, Packing
from recoup.repository.repository import create_repository
from recoup.repository.seal import Key
from recoup.storage.local import LocalStore
from tests.integration.held_files import tree_of


@pytest.mark.parametrize("packing", [Packing(), Packing(compression="gzip", level=6), Packing(frame_bytes=65536)])
def test_a_file_set_comes_back_from_a_repository_as_it_was(tmp_path: Path, packing: Packing) -> None:
    base = tmp_path / "base"
    (base / "logs" / "deep").mkdir(parents=True)
    for number in range(30):
        (base / "logs" / f"{number}.log").write_bytes(os.urandom(number * 1000) + b"text " * number * 100)
    (base / "logs" / "big").write_bytes(os.urandom(3 << 20))
    os.link(base / "logs" / "big", base / "logs" / "deep" / "again")
    (base / "logs" / "latest").symlink_to("29.log")
    (base / "logs" / ("long" * 60)).write_text("x")
    (base / "logs" / "line\nfeed ü").write_text("y")
    with open(os.fsencode(base) + b"/logs/not-utf8-\xff", "wb") as file:
        file.write(b"z")
    (base / ".env").write_text("A=1")

    repository = create_repository(
        "local", LocalStore(tmp_path / "repository", create=True), Key.from_text("00112233445566778899aabbccddeeff" * 2)
    )
    header = Header(
        id=new_id(now()), system="shop", service="logs", engine="files", kind="files", label=None, begun=now()
    )
    with ArtefactWriter(header, [repository], packing) as writer:
        outcome = writer.finish(take_files(["logs", ".env"], base, writer))
    assert outcome.stored_in == ("local",)

    reader = ArtefactReader(repository.manifest(header.id), [repository])
    findings = check_files_copy(reader)
    assert overall(findings) is Verdict.OK, findings
    restore_files(reader, tmp_path / "new")
    assert tree_of(tmp_path / "new") == tree_of(base)
    assert differences(reader, tmp_path / "new") == []
    assert restore_files(reader, tmp_path / "new").placed == 0
