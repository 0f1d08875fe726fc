"""The ways that are compared. What each one does is a command that can be read here and typed by hand."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Contender
from recoup.demo.servers import PostgresServer

_KEY = "0f" * 32
_OPENSSL = "openssl enc -aes-256-cbc -pbkdf2 -md sha256 -iter 10000"


def _bytes_in(folder: Path) -> int:
    if not folder.exists():
        return 0
    return sum((Path(top) / name).lstat().st_size for top, _, names in os.walk(folder) for name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A filled cluster and the folders that the contenders write to. ``owner`` is who runs the server."""

    server: PostgresServer
    database: str
    work: Path
    owner: int | None

    @classmethod
    def prepare(cls, server: PostgresServer, database: str, work: Path) -> Scene:
        """Write the configurations: a Recoup plan, a pgBackRest stanza, a key file, the tar for the limit."""
        scene = cls(server=server, database=database, work=work, owner=server.owner[0] if server.owner else None)
        (work / "key").write_text(_KEY + "\n")
        (work / "key").chmod(0o644)
        (work / "recoup.yaml").write_text(
            f"recoup: 1\nsystem: bench\nkey: {{file: {work}/key}}\n"
            f"repositories:\n  local: {{path: {work}/recoup}}\n"
            f"services:\n  postgres: {{engine: postgres, url: '{server.url(database)}', fingerprint: false}}\n"
            "verify: {after_backup: stored}\n"
        )
        for name in ("pgbackrest", "spool", "log", "lock"):
            (work / name).mkdir()
            if scene.owner is not None:
                os.chown(work / name, scene.owner, scene.owner)
        (work / "pgbackrest.conf").write_text(
            f"[global]\nrepo1-path={work}/pgbackrest\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass={_KEY}\n"
            f"compress-type=zst\ncompress-level=3\nprocess-max=2\nstart-fast=y\narchive-check=n\nlog-level-file=off\n"
            f"log-path={work}/log\nlock-path={work}/lock\nspool-path={work}/spool\nrepo1-retention-full=1\n"
            f"[bench]\npg1-path={server.data_folder}\npg1-port={server.port}\npg1-socket-path={server.socket_folder}\n"
            f"pg1-user={server.user}\n"
        )
        scene.pgbackrest("stanza-create")
        tar = server.bin / "pg_basebackup"
        subprocess.run(
            f"{tar} -d '{server.url(database)}' -Ft -X fetch -c fast -D - > {work}/plain.tar", shell=True, check=True
        )
        return scene

    def pgbackrest(self, command: str, *options: str) -> None:
        """Run pgBackRest as the server's user."""
        argv = ["pgbackrest", f"--config={self.work}/pgbackrest.conf", "--stanza=bench", *options, command]
        identity = {} if self.owner is None else {"user": self.owner, "group": self.owner, "extra_groups": []}
        subprocess.run(argv, check=True, capture_output=True, **identity)

    def recoup(self, *arguments: str) -> list[str]:
        """The command line of Recoup with this scene's plan."""
        return [sys.executable, "-m", "recoup.cli", *arguments, "-f", str(self.work / "recoup.yaml"), "--quiet"]

    def fresh(self, name: str) -> Callable[[], None]:
        """Empties a folder of the scene before a run."""

        def prepare() -> None:
            shutil.rmtree(self.work / name, ignore_errors=True)
            (self.work / name).mkdir()
            if self.owner is not None:
                os.chown(self.work / name, self.owner, self.owner)

        return prepare

    def make_sources(self) -> None:
        """One copy by each way, for the restores."""
        self.fresh("recoup")()
        (self.work / "recoup").rmdir()
        subprocess.run(self.recoup("backup", "postgres", "--kind", "base"), check=True, capture_output=True)
        self.fresh("pgbackrest")()
        self.pgbackrest("stanza-create")
        self.pgbackrest("backup", "--type=full")
        self.fresh("pipe")()
        for contender in (_pipe(self), _plain(self)):
            contender.prepare()
            assert isinstance(contender.argv, str)
            subprocess.run(["bash", "-o", "pipefail", "-c", contender.argv], check=True, capture_output=True)


def _pipe(scene: Scene) -> Contender:
    server, target = scene.server, scene.work / "pipe"
    return Contender(
        name="pg_basebackup, zstd -3 -T2, openssl",
        argv=(
            f"{server.bin}/pg_basebackup -d '{server.url(scene.database)}' -Ft -X fetch -c fast -D - | zstd -q -3 -T2 "
            f"| {_OPENSSL} -salt -pass file:{scene.work}/key -out {target}/base.tar.zst.enc"
        ),
        prepare=scene.fresh("pipe"),
        size=lambda: _bytes_in(target),
    )


def _plain(scene: Scene) -> Contender:
    server, target = scene.server, scene.work / "plain"
    return Contender(
        name="pg_dump > file; gzip; openssl",
        argv=(
            f"{server.bin}/pg_dump -d '{server.url(scene.database)}' > {target}/d.sql && gzip {target}/d.sql && "
            f"{_OPENSSL} -salt -pass file:{scene.work}/key -in {target}/d.sql.gz -out {target}/d.sql.gz.enc && "
            f"rm {target}/d.sql.gz"
        ),
        prepare=scene.fresh("plain"),
        size=lambda: _bytes_in(target),
    )


def backups(scene: Scene, *, plain: bool) -> list[Contender]:
    """The contenders for a base backup. Recoup comes first; it also reads its copy back before it reports it."""
    work, server = scene.work, scene.server

    def no_recoup() -> None:
        shutil.rmtree(work / "recoup", ignore_errors=True)

    def no_pgbackrest() -> None:
        scene.fresh("pgbackrest")()
        scene.pgbackrest("stanza-create")

    pgbackrest = ["pgbackrest", f"--config={work}/pgbackrest.conf", "--stanza=bench", "--type=full", "backup"]
    found = [
        Contender(
            name="recoup backup",
            argv=scene.recoup("backup", "postgres", "--kind", "base"),
            prepare=no_recoup,
            size=lambda: _bytes_in(work / "recoup"),
        ),
        Contender(
            name="zstd -3 -T2 of the same tar (limit)",
            argv=f"zstd -q -3 -T2 -c {work}/plain.tar > /dev/null",
        ),
        Contender(
            name="pgBackRest full, zst 3, aes, 2 processes",
            argv=pgbackrest,
            prepare=no_pgbackrest,
            size=lambda: _bytes_in(work / "pgbackrest"),
            user=scene.owner,
        ),
        _pipe(scene),
        Contender(
            name="pg_basebackup server-zstd 3 x2, openssl",
            argv=(
                f"{server.bin}/pg_basebackup -d '{server.url(scene.database)}' -Ft -X fetch -c fast --no-manifest "
                f"--compress=server-zstd:level=3,workers=2 -D - "
                f"| {_OPENSSL} -salt -pass file:{work}/key -out {work}/pipe/base.tar.zst.enc"
            ),
            prepare=scene.fresh("pipe"),
            size=lambda: _bytes_in(work / "pipe"),
        ),
    ]
    return [*found, _plain(scene)] if plain else found


def restores(scene: Scene, *, plain: bool) -> list[Contender]:
    """The contenders for a restore into an empty folder (or, for the dump, into a new database)."""
    work, server = scene.work, scene.server
    target = work / "restored"
    found = [
        Contender(
            name="recoup restore",
            argv=scene.recoup("restore", "latest", "--service", "postgres", "--destination", str(target)),
            prepare=scene.fresh("restored"),
            size=lambda: _bytes_in(target),
        ),
        Contender(
            name="pgBackRest restore, 2 processes",
            argv=[
                "pgbackrest",
                f"--config={work}/pgbackrest.conf",
                "--stanza=bench",
                f"--pg1-path={target}",
                "--type=immediate",
                "restore",
            ],
            prepare=scene.fresh("restored"),
            size=lambda: _bytes_in(target),
            user=scene.owner,
        ),
        Contender(
            name="openssl, zstd -d, tar -x",
            argv=(
                f"{_OPENSSL} -d -pass file:{work}/key -in {work}/pipe/base.tar.zst.enc | zstd -q -d "
                f"| tar -x -C {target}"
            ),
            prepare=scene.fresh("restored"),
            size=lambda: _bytes_in(target),
        ),
    ]
    if plain:
        psql = f"{server.bin}/psql -q -X -v ON_ERROR_STOP=1"

        def new_database() -> None:
            url = server.url()
            subprocess.run(f"{psql} -d '{url}' -c 'drop database if exists back'", shell=True, check=True)
            subprocess.run(f"{psql} -d '{url}' -c 'create database back template template0'", shell=True, check=True)

        found.append(
            Contender(
                name="openssl, gunzip, psql",
                argv=(
                    f"{_OPENSSL} -d -pass file:{work}/key -in {work}/plain/d.sql.gz.enc | gunzip "
                    f"| {psql} -d '{server.url('back')}'"
                ),
                prepare=new_database,
            )
        )
    return found
