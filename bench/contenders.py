"""The ways that are compared. What each one does is a command that can be read here and typed by hand."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench.measure import Contender
from recoup.demo.servers import PostgresServer

LIMIT = "zstd -3 -T2 of the same tar to nowhere (limit)"
#: What the names of pgBackRest's contenders begin with.
PGBACKREST = "pgBackRest"

_KEY = "0f" * 32
#: What every pipe encrypts with.
OPENSSL = "openssl enc -aes-256-cbc -pbkdf2 -md sha256 -iter 10000"


def bytes_in(folder: Path) -> int:
    """The sizes of all files below ``folder``."""
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
        """Write the configurations: Recoup's plans, a pgBackRest stanza, a key file."""
        work.mkdir(exist_ok=True)
        work.chmod(0o755)
        scene = cls(server=server, database=database, work=work, owner=server.owner[0] if server.owner else None)
        (work / "key").write_text(_KEY + "\n")
        scene._write_plan("recoup", "fingerprint: false", "stored")
        scene._write_plan("recoup-default", "fingerprint: true", "intact")
        scene._write_plan("recoup-wal", "wal: continuous", "stored")
        for name in ("spool", "log", "lock"):
            scene.fresh(name)()
        (work / "pgbackrest.conf").write_text(
            f"[global]\nrepo1-path={work}/pgbackrest\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass={_KEY}\n"
            f"compress-type=zst\ncompress-level=3\nprocess-max=2\nstart-fast=y\narchive-check=n\nlog-level-file=off\n"
            f"log-path={work}/log\nlock-path={work}/lock\nspool-path={work}/spool\nrepo1-retention-full=99\n"
            f"[bench]\npg1-path={server.data_folder}\npg1-port={server.port}\npg1-socket-path={server.socket_folder}\n"
            f"pg1-user={server.user}\n"
        )
        return scene

    def _write_plan(self, name: str, more: str, after_backup: str) -> None:
        work = self.work
        (work / f"{name}.yaml").write_text(
            f"recoup: 1\nsystem: {name}\nkey: {{file: {work}/key}}\nrepositories:\n  local: {{path: {work}/{name}}}\n"
            f"services:\n  postgres: {{engine: postgres, url: '{self.server.url(self.database)}', {more}}}\n"
            f"verify: {{after_backup: {after_backup}}}\n"
        )

    def make_tar(self) -> None:
        """The cluster as one plain tar, for the limit."""
        command = f"{self._base_backup()} -D - > {self.work}/plain.tar"
        subprocess.run(["bash", "-c", command], check=True)

    def _base_backup(self) -> str:
        return f"{self.server.bin}/pg_basebackup -d '{self.server.url(self.database)}' -Ft -X fetch -c fast"

    def environment(self) -> Mapping[str, str]:
        """What Recoup needs so that nothing of the bench stays on the machine."""
        return {"RECOUP_STATE": str(self.work / "state")}

    def recoup(self, *arguments: str, plan: str = "recoup") -> list[str]:
        """The command line of Recoup with one of this scene's plans."""
        return [sys.executable, "-m", "recoup.cli", *arguments, "-f", str(self.work / f"{plan}.yaml"), "--quiet"]

    def pgbackrest(self, command: str, *options: str) -> list[str]:
        """The command line of pgBackRest; it runs as the server's user."""
        return ["pgbackrest", f"--config={self.work}/pgbackrest.conf", "--stanza=bench", *options, command]

    def without_recoup(self) -> None:
        """No repository, and no memory of one."""
        for name in ("recoup", "recoup-default", "recoup-wal", "state"):
            self._retire(name)

    def fresh(self, name: str) -> Callable[[], None]:
        """Empties a folder of the scene, or makes it, for the server's user."""

        def prepare() -> None:
            self._retire(name)
            (self.work / name).mkdir()
            self.give(self.work / name)

        return prepare

    def give(self, path: Path) -> None:
        """Make the server's user the owner."""
        if self.owner is not None:
            os.chown(path, self.owner, self.owner)

    def _retire(self, name: str) -> None:
        """Put a folder out of the way and empty its files, without removing them.

        For minutes after 1,000 files were removed, ext4 makes new ones very slowly: it does not use their inodes again
        and looks at each of them each time. That cost every restore of 1 GB a second that nobody has on a real disk.
        """
        if not (self.work / name).exists():
            return
        retired = self.work / "retired"
        retired.mkdir(exist_ok=True)
        place = retired / str(len(list(retired.iterdir())))
        (self.work / name).rename(place)
        for top, _, files in os.walk(place):
            for file in files:
                if not (Path(top) / file).is_symlink():
                    os.truncate(Path(top) / file, 0)

    def run(self, contender: Contender) -> None:
        """Run a contender without measuring it. Raise ``RuntimeError`` with what it said when it fails."""
        contender.prepare()
        who = {} if contender.user is None else {"user": contender.user, "group": contender.user, "extra_groups": []}
        done = subprocess.run(
            contender.command(), capture_output=True, text=True, env={**os.environ, **contender.environment}, **who
        )
        if done.returncode != 0:
            raise RuntimeError(f"{contender.name} failed ({done.returncode}): {done.stdout}{done.stderr}")

    def digests(self, root: Path) -> dict[str, str]:
        """The sha256 of every data file that belongs to a table of ours, in a data folder."""
        query = "select pg_relation_filepath(oid) from pg_class where oid >= 16384 and relfilenode <> 0"
        found = {}
        for (relative,) in self.server.execute(query, self.database):
            for path in sorted(root.glob(f"{relative}*")):
                if path.name.split(".")[0].split("_")[0] == Path(relative).name:
                    with open(path, "rb") as file:
                        found[str(path.relative_to(root))] = hashlib.file_digest(file, "sha256").hexdigest()
        return found


def recoup_backup(scene: Scene, *, plan: str = "recoup", name: str = "recoup backup") -> Contender:
    """Recoup's base backup. It syncs, and reads its copy back, before it reports it."""
    return Contender(
        name=name,
        argv=scene.recoup("backup", "postgres", "--kind", "base", plan=plan),
        prepare=scene.without_recoup,
        size=lambda: bytes_in(scene.work / plan),
        environment=scene.environment(),
    )


def recoup_restore(scene: Scene) -> Contender:
    """Recoup's restore of its newest copy into an empty folder."""
    target = scene.work / "restored"
    return Contender(
        name="recoup restore",
        argv=scene.recoup("restore", "latest", "--service", "postgres", "--destination", str(target)),
        prepare=scene.fresh("restored"),
        size=lambda: bytes_in(target),
        environment=scene.environment(),
    )


def new_stanza(scene: Scene, folder: str = "pgbackrest", *options: str) -> None:
    """An empty repository of pgBackRest."""
    scene.fresh(folder)()
    scene.run(Contender(name="stanza-create", argv=scene.pgbackrest("stanza-create", *options), user=scene.owner))


def pgbackrest_backup(scene: Scene, *, bundle: bool = False) -> Contender:
    """pgBackRest's full backup; bundled, it puts small files together, which its default does not."""
    folder = "pgbackrest-bundle" if bundle else "pgbackrest"
    options = _where(scene, bundle=bundle)

    return Contender(
        name=f"{PGBACKREST} full, {'bundled, ' if bundle else ''}zst 3, aes, 2 processes",
        argv=scene.pgbackrest("backup", "--type=full", *options),
        prepare=lambda: new_stanza(scene, folder, *options[:1]),
        size=lambda: bytes_in(scene.work / folder),
        user=scene.owner,
    )


def _pgbackrest_restore(scene: Scene, *, bundle: bool = False) -> Contender:
    target = scene.work / "restored"
    where = _where(scene, bundle=bundle)[:1]
    return Contender(
        name=f"{PGBACKREST} restore, {'bundled, ' if bundle else ''}2 processes",
        argv=scene.pgbackrest("restore", *where, f"--pg1-path={target}", "--type=immediate"),
        prepare=scene.fresh("restored"),
        size=lambda: bytes_in(target),
        user=scene.owner,
    )


def _where(scene: Scene, *, bundle: bool) -> list[str]:
    return [f"--repo1-path={scene.work}/pgbackrest-bundle", "--repo1-bundle"] if bundle else []


def _pipe(scene: Scene, *, synced: bool) -> Contender:
    target = scene.work / "pipe" / "base.tar.zst.enc"
    sync = f" && sync {target} {target.parent}" if synced else ""
    return Contender(
        name=f"pg_basebackup, zstd -3 -T2, openssl{', sync' if synced else ''}",
        argv=(
            f"{scene._base_backup()} -D - | zstd -q -3 -T2 "
            f"| {OPENSSL} -salt -pass file:{scene.work}/key -out {target}{sync}"
        ),
        prepare=scene.fresh("pipe"),
        size=lambda: bytes_in(target.parent),
    )


def _server_compressed(scene: Scene) -> Contender:
    target = scene.work / "pipe" / "base.tar.zst.enc"
    return Contender(
        name="pg_basebackup server-zstd 3 x2, openssl, sync",
        argv=(
            f"{scene._base_backup()} --no-manifest --compress=server-zstd:level=3,workers=2 -D - "
            f"| {OPENSSL} -salt -pass file:{scene.work}/key -out {target} && sync {target} {target.parent}"
        ),
        prepare=scene.fresh("pipe"),
        size=lambda: bytes_in(target.parent),
    )


def _plain(scene: Scene) -> Contender:
    server, target = scene.server, scene.work / "plain"
    return Contender(
        name="pg_dump > file; gzip; openssl",
        argv=(
            f"{server.bin}/pg_dump -d '{server.url(scene.database)}' > {target}/d.sql && gzip {target}/d.sql && "
            f"{OPENSSL} -salt -pass file:{scene.work}/key -in {target}/d.sql.gz -out {target}/d.sql.gz.enc && "
            f"rm {target}/d.sql.gz"
        ),
        prepare=scene.fresh("plain"),
        size=lambda: bytes_in(target),
        warm_up=False,
    )


def backups(scene: Scene, *, plain: bool) -> list[Contender]:
    """The contenders for a base backup; Recoup comes first."""
    found = [
        recoup_backup(scene),
        Contender(name=LIMIT, argv=f"zstd -q -3 -T2 -c {scene.work}/plain.tar > /dev/null"),
        pgbackrest_backup(scene),
        pgbackrest_backup(scene, bundle=True),
        _pipe(scene, synced=False),
        _pipe(scene, synced=True),
        _server_compressed(scene),
        recoup_backup(scene, plan="recoup-default", name="recoup backup as by default: fingerprints, verify intact"),
    ]
    return [*found, _plain(scene)] if plain else found


def make_sources(scene: Scene, *, plain: bool) -> None:
    """One copy by each way, for the restores."""
    ways = [recoup_backup(scene), pgbackrest_backup(scene), pgbackrest_backup(scene, bundle=True)]
    for contender in [*ways, _pipe(scene, synced=False), *([_plain(scene)] if plain else [])]:
        scene.run(contender)


def restores(scene: Scene, *, plain: bool) -> list[Contender]:
    """The contenders for a restore into an empty folder (or, for the dump, into a new database); Recoup comes first."""
    target = scene.work / "restored"
    unpack = (
        f"{OPENSSL} -d -pass file:{scene.work}/key -in {scene.work}/pipe/base.tar.zst.enc | zstd -q -d "
        f"| tar -x -C {target}"
    )
    stock = [
        Contender(
            name=f"openssl, zstd -d, tar -x{', sync' if synced else ''}",
            argv=f"{unpack} && sync -f {target}" if synced else unpack,
            prepare=scene.fresh("restored"),
            size=lambda: bytes_in(target),
        )
        for synced in (False, True)
    ]
    folders = [recoup_restore(scene), _pgbackrest_restore(scene), _pgbackrest_restore(scene, bundle=True), *stock]
    expected = scene.digests(scene.server.data_folder)

    def same() -> None:
        if not expected or scene.digests(target) != expected:
            raise RuntimeError(f"what was restored into {target} is not what was backed up")

    checked = [replace(one, check=same) for one in folders]
    return [*checked, _load_dump(scene)] if plain else checked


def _load_dump(scene: Scene) -> Contender:
    server = scene.server

    def new_database() -> None:
        server.execute("drop database if exists back")
        server.execute("create database back template template0")

    return Contender(
        name="openssl, gunzip, psql",
        argv=(
            f"{OPENSSL} -d -pass file:{scene.work}/key -in {scene.work}/plain/d.sql.gz.enc | gunzip "
            f"| {server.bin}/psql -q -X -v ON_ERROR_STOP=1 -d '{server.url('back')}'"
        ),
        prepare=new_database,
        size=lambda: int(server.execute("select pg_database_size('back')")[0][0]),
        warm_up=False,
    )
