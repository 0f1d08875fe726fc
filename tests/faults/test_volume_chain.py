"""The scripts that put a chain of incremental backups into a container's volume, killed at every command."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from recoup.assembly.restore import homes
from recoup.demo.programs import Programs
from recoup.demo.servers import PostgresServer
from recoup.engines.compose.one_off import OneOff
from recoup.engines.postgres import volume_script
from recoup.engines.postgres.earlier import tar_with_manifest
from recoup.engines.postgres.volume_script import parse_status
from recoup.kernel.secret import Secret
from tests.integration.incrementals import summarizing, take
from tests.integration.postgres_copies import MemoryCopy

ID = "20261123-020000-k7f3q2.abc123"
_CHANGING = ("mv", "mkdir", "rmdir", "chown", "chmod", "rm", "tar", "pg_combinebackup")


@pytest.fixture(scope="module")
def chain() -> Iterator[tuple[PostgresServer, list[MemoryCopy]]]:
    with summarizing(17) as server:
        server.execute("CREATE TABLE t AS SELECT i, md5(i::text) AS t FROM generate_series(1, 20000) i")
        server.execute("VACUUM (FREEZE) t")
        copies = [take(server)]
        for number in (1, 2):
            server.execute(f"UPDATE t SET t = 'changed' WHERE i % 1000 = {number}")
            copies.append(take(server, copies[-1]))
        yield server, copies


@pytest.fixture
def data(server_folder: Path) -> Path:
    """A data folder with something old in it."""
    folder = server_folder / "data"
    (folder / "global").mkdir(parents=True)
    (folder / "PG_VERSION").write_text("17\n")
    (folder / "global/pg_control").write_bytes((7123456789012345678).to_bytes(8, "little") + bytes(8184))
    return folder


def _run(script: str, data: Path, *more: str, path: Sequence[Path], stdin: bytes = b"", deadly: int = 0) -> int:
    environment = {"PATH": ":".join([*map(str, path), os.environ["PATH"]]), "DEADLY": str(deadly)}
    argv = ["sh", "-c", script, "recoup", str(data), ID, *more]
    done = subprocess.run(argv, input=stdin, env=environment, capture_output=True, check=False, timeout=120)
    return done.returncode


def _stage(data: Path, copies: Sequence[MemoryCopy], path: Sequence[Path]) -> None:
    for number, copy in enumerate(copies):
        tar = b"".join(tar_with_manifest(copy))
        assert _run(volume_script.STAGE_PART, data, str(number), path=path, stdin=tar) == 0


def _old_is_there(data: Path) -> bool:
    said = subprocess.run(
        ["sh", "-c", volume_script.STATUS, "recoup", str(data), "look"], capture_output=True, check=True, timeout=60
    )
    status = parse_status(said.stdout)
    return status.cluster == ("7123456789012345678", "17") and status.placing is None


def _deadly(tmp_path: Path, path: Sequence[Path]) -> Path:
    """A folder of programs that kill the script that calls number ``$DEADLY``, before they act."""
    folder = tmp_path / "deadly"
    folder.mkdir()
    for name in _CHANGING:
        real = shutil.which(name, path=":".join([*map(str, path), os.environ["PATH"]]))
        assert real is not None
        count = f"n=$(cat {tmp_path}/calls 2>/dev/null || echo 0); n=$((n + 1)); echo $n > {tmp_path}/calls\n"
        (folder / name).write_text(
            f'#!/bin/sh\n[ "$1" != --help ] || exec {real} --help\n{count}[ "$n" -ne "$DEADLY" ] || kill -9 $PPID\n'
            f'[ "$n" -eq "$DEADLY" ] || exec {real} "$@"\n'
        )
        (folder / name).chmod(0o755)
    return folder


def test_a_chain_is_staged_beside_the_old_data_and_starts_after_the_swap(
    chain: tuple[PostgresServer, list[MemoryCopy]], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, copies = chain

    def here(_client: object, one_off: OneOff, pieces: Iterable[bytes] = (), **_: object) -> None:
        environment = {"PATH": f"{server.bin}:{os.environ['PATH']}"}
        done = subprocess.run(one_off.argv, input=b"".join(pieces), env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr

    for name in ("feed", "run_one_off", "remove_leftovers"):
        monkeypatch.setattr(homes, name, here if name != "remove_leftovers" else lambda *_, **__: None)
    inside = SimpleNamespace(environment={"PGDATA": Secret(str(data))})
    home = homes.PostgresHome(
        place=SimpleNamespace(name="postgres"),  # type: ignore[arg-type]
        stack=SimpleNamespace(client=None, project=SimpleNamespace(service=lambda _: inside)),  # type: ignore[arg-type]
        compose_service="db",
        parents=tuple(copies[:-1]),
    )
    assert home.needs_bytes(copies[-1]) > 2 * sum(len(copy.data["base.tar"]) for copy in copies)
    home.stage(copies[-1], ID, lambda _: None)
    assert _old_is_there(data)
    assert not (data / volume_script.PARTS).exists()
    assert _run(volume_script.SWAP, data, path=[server.bin]) == 0
    kept = data / f"{volume_script.REPLACED}{ID}"
    assert (kept / "PG_VERSION").read_text() == "17\n"
    shutil.rmtree(kept)
    with PostgresServer(Programs(path=server.bin), data_folder=data) as restored:
        assert restored.execute("SELECT count(*) FILTER (WHERE t = 'changed'), count(*) FROM t") == [(40, 20000)]
        table = data / str(restored.execute("SELECT pg_relation_filepath('t')")[0][0])
        assert not Path(f"{table}_vm").exists(), (
            "what was put together of parts says of changed pages that they are not"
        )


def test_the_old_data_survive_a_kill_at_any_command_and_the_same_restore_starts_over(
    chain: tuple[PostgresServer, list[MemoryCopy]], data: Path, tmp_path: Path
) -> None:
    server, copies = chain
    deadly = _deadly(tmp_path, [server.bin])
    number, ended = 0, -9
    while ended != 0:
        number += 1
        _stage(data, copies[:2], [server.bin])
        (tmp_path / "calls").unlink(missing_ok=True)
        ended = _run(volume_script.COMBINE, data, "2", path=[deadly], deadly=number)
        assert ended in (0, -9)
        assert _old_is_there(data)
    assert number > 4
    assert _run(volume_script.SWAP, data, path=[server.bin]) == 0
    assert (data / "global/pg_control").exists()


def test_what_a_kill_left_of_a_chain_is_removed_by_forgetting_that_restore(
    chain: tuple[PostgresServer, list[MemoryCopy]], data: Path, tmp_path: Path
) -> None:
    server, copies = chain
    deadly, tar = _deadly(tmp_path, [server.bin]), b"".join(tar_with_manifest(copies[1]))
    for script, more, stdin in ((volume_script.STAGE_PART, "1", tar), (volume_script.COMBINE, "2", b"")):
        number, ended = 0, -9
        while ended != 0:
            number += 1
            _stage(data, copies[: 1 if stdin else 2], [server.bin])
            (tmp_path / "calls").unlink(missing_ok=True)
            ended = _run(script, data, more, path=[deadly], stdin=stdin, deadly=number)
            assert ended in (0, -9)
            assert _run(volume_script.FORGET, data, path=[server.bin]) == 0
            left = sorted(path.name for path in data.iterdir())
            assert left == ["PG_VERSION", "global"], f"killed at command {number}: {left}"
        assert number > 1


def test_the_parts_of_two_restores_are_not_put_together(
    chain: tuple[PostgresServer, list[MemoryCopy]], data: Path
) -> None:
    server, copies = chain
    _stage(data, copies[:2], [server.bin])
    (data / volume_script.STAGED_BY).write_text("somebody-else\n")
    tar = b"".join(tar_with_manifest(copies[2]))
    assert _run(volume_script.STAGE_PART, data, "2", path=[server.bin], stdin=tar) == 1
    assert _run(volume_script.COMBINE, data, "2", path=[server.bin]) == 1
    assert sorted(path.name for path in (data / volume_script.PARTS).iterdir()) == ["0", "1"]


def test_what_fails_to_combine_leaves_nothing_in_the_volume(
    chain: tuple[PostgresServer, list[MemoryCopy]], data: Path
) -> None:
    server, copies = chain
    _stage(data, [copies[0], copies[2]], [server.bin])
    assert _run(volume_script.COMBINE, data, "2", path=[server.bin]) == 1
    assert _run(volume_script.STAGE_PART, data, "0", path=[server.bin], stdin=b"") != 0
    assert _old_is_there(data)
    assert sorted(path.name for path in data.iterdir()) == ["PG_VERSION", "global"]
