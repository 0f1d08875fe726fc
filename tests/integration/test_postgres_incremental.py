"""Incremental backups of real servers: what they hold, what they come back as, and when they are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from recoup.demo.host import temporary_folder
from recoup.demo.programs import Programs
from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.access import DirectAccess
from recoup.engines.postgres.base_check import check_base_copy
from recoup.engines.postgres.base_fingerprint import compare_with_base
from recoup.engines.postgres.place_chain import restore_chain_to_folder
from recoup.kernel.finding import Verdict, overall
from recoup.kernel.secret import Secret
from tests.integration.incrementals import Chain, summarizing, take_chain


@pytest.fixture(scope="module", params=[17, 18], ids=lambda major: f"postgres{major}")
def chain(request: pytest.FixtureRequest) -> Iterator[Chain]:
    with summarizing(request.param) as server, temporary_folder("chain") as folder:
        yield take_chain(server, folder)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_every_backup_of_a_chain_comes_back_as_it_was(chain: Chain, server_folder: Path, length: int) -> None:
    server = chain.server
    placed = restore_chain_to_folder(
        chain.copies[:length], server_folder / "restored", owner=server.owner, programs=[server.bin]
    )
    assert not list(server_folder.rglob("recoup-*"))
    with PostgresServer(Programs(path=server.bin), data_folder=placed.folder) as restored:
        findings = compare_with_base(chain.prints[length - 1], DirectAccess(Secret(restored.url())))
        assert overall(findings) is Verdict.OK, findings


def test_an_incremental_backup_is_small_and_intact(chain: Chain) -> None:
    base, *later = (len(copy.data["base.tar"]) for copy in chain.copies)
    assert all(one < base for one in later)
    for copy in chain.copies:
        findings = check_base_copy(copy)
        assert overall(findings) is Verdict.OK, findings
