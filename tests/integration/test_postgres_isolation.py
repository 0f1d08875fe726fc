"""A restored database that wants to call out: nothing of it arrives anywhere."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recoup.demo.host import wait_until
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.base_backup import take_base_backup
from recoup.engines.postgres.dump import DumpRequest, take_dump
from recoup.engines.postgres.live import LiveRequest, open_postgres_live
from recoup.engines.postgres.sandbox_programs import local_installation
from recoup.engines.postgres.sandbox_restore import new_cluster
from recoup.engines.postgres.sandbox_server import start_sandbox_server
from recoup.engines.sandbox import open_sandbox
from recoup.engines.sandbox_processes import processes_of
from recoup.kernel.errors import EngineError
from recoup.kernel.finding import Verdict, overall
from recoup.kernel.secret import Secret
from tests.integration.held_copy import HeldCopy
from tests.integration.logical import direct
from tests.integration.postgres_copies import MemoryCopy
from tests.real import require, require_found


class Listener:
    """Counts who connects, on the loopback and on a socket in the file system, and hangs up."""

    def __init__(self, folder: Path) -> None:
        self.calls = 0
        self._sockets = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)]
        self.port = self._sockets[0].getsockname()[1]
        self._sockets[1].bind(str(folder / f".s.PGSQL.{self.port}"))
        self._sockets[1].listen()
        (folder / f".s.PGSQL.{self.port}").chmod(0o777)
        for one in self._sockets:
            threading.Thread(target=self._accept, args=[one], daemon=True).start()

    def _accept(self, one: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = one.accept()
                self.calls += 1
                connection.close()

    def settled(self) -> int:
        """How many have called, when everybody who has called is counted: one queues behind them."""
        for one in self._sockets:
            with socket.socket(one.family) as last:
                last.connect(one.getsockname())
                assert last.recv(1) == b""
        return self.calls

    def close(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.fixture
def listener(server_folder: Path) -> Iterator[Listener]:
    (server_folder / "sockets").mkdir(mode=0o755)
    one = Listener(server_folder / "sockets")
    yield one
    one.close()


@pytest.fixture
def root(server_folder: Path) -> Path:
    return server_folder / "sandboxes"


def calling_out(server: PostgresServer, listener: Listener, sockets: Path) -> None:
    """Everything in a database that calls, without anybody asking it to or when it is read."""
    where = f"host=127.0.0.1 port={listener.port} dbname=x user=x password=x"
    for statement in (
        "CREATE EXTENSION dblink",
        "CREATE EXTENSION postgres_fdw",
        f"CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{listener.port}')",
        f"CREATE SERVER near FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{sockets}', port '{listener.port}')",
        "CREATE USER MAPPING FOR PUBLIC SERVER far OPTIONS (user 'x', password 'x')",
        "CREATE USER MAPPING FOR PUBLIC SERVER near OPTIONS (user 'x', password 'x')",
        "CREATE FOREIGN TABLE far (i int) SERVER far",
        "CREATE FOREIGN TABLE near (i int) SERVER near",
        "CREATE TABLE kept (i int)",
        f"CREATE SUBSCRIPTION comes CONNECTION '{where}' PUBLICATION p WITH (connect = false, slot_name = 's')",
        "ALTER SUBSCRIPTION comes ENABLE",
        f"""CREATE FUNCTION call() RETURNS event_trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM dblink_connect('a' || pg_backend_pid(), '{where}'); EXCEPTION WHEN OTHERS THEN END $$""",
        "CREATE EVENT TRIGGER call ON login EXECUTE FUNCTION call()",
        "ALTER EVENT TRIGGER call ENABLE ALWAYS",
    ):
        server.execute(statement)


def test_no_call_of_a_restored_database_arrives(server_folder: Path, root: Path, listener: Listener) -> None:
    require("unshare")
    sockets = server_folder / "sockets"
    base, dump = MemoryCopy(), HeldCopy()
    with PostgresServer(require_found(lambda: find_postgres(17)), settings={"wal_level": "logical"}) as server:
        calling_out(server, listener, sockets)
        assert wait_until(lambda: listener.calls > 0, limit_seconds=120), "production would not call either"
        base.copy_facts = take_base_backup(Secret(server.url()), base, label="calls")
        dump.complete(take_dump(direct(server), dump, DumpRequest()))
    for copy in (base, dump):
        before = listener.settled()
        with open_postgres_live([copy], root, LiveRequest()) as live:
            findings = live.boots()
            assert overall(findings) is Verdict.OK, findings
            assert "network" not in findings[0].not_checked
            with live.server.session() as session:
                assert session.query("SELECT count(*) FROM pg_subscription") == [("1",)]
                for table in ("far", "near"):
                    with pytest.raises(EngineError, match="could not connect"):
                        session.query(f"SELECT * FROM public.{table}")
                for address in (f"host=127.0.0.1 port={listener.port}", f"host={sockets} port={listener.port}"):
                    with pytest.raises(EngineError, match="could not establish connection"):
                        session.query(f"SELECT public.dblink_connect('{address} user=x password=x')")
                # Asked for: a worker has no place to run.
                session.execute("ALTER SUBSCRIPTION comes ENABLE")
                workers = session.query("SELECT backend_type FROM pg_stat_activity WHERE backend_type ~ 'repl|work'")
                assert {kind for (kind,) in workers} <= {"io worker"}
                seen = [silent(process) for process in processes_of(live.server.sandbox.id)]
                assert True in seen
                assert False not in seen
        assert listener.settled() == before + 2, "one more on each socket is ourselves"


def test_a_library_that_has_to_be_loaded_still_starts_no_worker(postgres17: PostgresServer, root: Path) -> None:
    with open_sandbox(root, "a test") as sandbox:
        folder = new_cluster(sandbox, local_installation(sandbox, 17, folders=[postgres17.bin]))
        loaded = {"shared_preload_libraries": "pg_prewarm"}
        with (
            start_sandbox_server(sandbox, folder, major=17, programs=[postgres17.bin], settings=loaded) as server,
            server.session() as session,
        ):
            kinds = {kind for (kind,) in session.query("SELECT backend_type FROM pg_stat_activity")}
            assert kinds <= {"client backend", "checkpointer", "background writer", "walwriter"}
            assert "too many background workers" in server.log, "it would have started one"


def silent(process: int) -> bool | None:
    """Whether no packet went through any interface of a process's network: its namespace is its own, and all zeros.

    None when it has ended meanwhile.
    """
    ours = Path("/proc/self/ns/net").readlink()
    try:
        if Path(f"/proc/{process}/ns/net").readlink() == ours:
            return Path(f"/proc/{process}/comm").read_text().strip() == "unshare"
        lines = Path(f"/proc/{process}/net/dev").read_text().splitlines()[2:]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return all(set(line.split(":")[1].split()) == {"0"} for line in lines)
