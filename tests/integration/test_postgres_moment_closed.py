"""A recovery to an instant is a matter of the machine it runs on: the server of it calls nobody."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from recoup.engines.postgres.recovery_target import Latest
from tests.integration.moment_place import recover, repository_in
from tests.integration.wal_story import story


def test_no_subscription_of_a_copy_calls_out_while_it_is_recovered(server_folder: Path) -> None:
    repository, settings = repository_in(server_folder / "repository"), {"wal_level": "logical"}
    with (
        socket.create_server(("127.0.0.1", 0)) as publisher,
        story(17, [repository], settings=settings) as told,
    ):
        address = f"host=127.0.0.1 port={publisher.getsockname()[1]} dbname=far"
        told.server.execute(
            f"CREATE SUBSCRIPTION calls CONNECTION '{address}' PUBLICATION far "
            "WITH (connect = false, slot_name = 'far')"
        )
        told.base()
        told.server.execute("ALTER SUBSCRIPTION calls ENABLE")
        told.commit(1)
        told.archive()
        told.server.stop()
        publisher.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:  # what production itself has called
                publisher.accept()[0].close()
        recover(told, server_folder, Latest())
        with pytest.raises(BlockingIOError):
            publisher.accept()
