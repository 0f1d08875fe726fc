"""``restore.sh`` of a repository, on a machine that has never heard of Recoup."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from recoup.demo.programs import find_postgres, find_redis
from recoup.demo.servers import PostgresServer, RedisServer
from recoup.engines.postgres.base_fingerprint import compare_with_base
from recoup.engines.postgres.comparison import CopyMode, compare
from recoup.engines.postgres.fingerprint import fingerprint_database
from recoup.engines.redis import fingerprint as redis_fingerprint
from recoup.kernel.finding import Verdict, overall
from recoup.repository import layout
from recoup.repository.seal import Key, authenticate
from tests.acceptance.workplace import KEY, OTHER_KEY, Workplace, new_workplace
from tests.integration import redis_copies
from tests.integration.logical import databases_of, direct, make_roles, nasty_database
from tests.real import require, require_found

_BARE = {"PATH": "/usr/bin:/bin"}
_SHELLS = ["dash", "bash", "busybox"]


@dataclass(slots=True)
class Held:
    """A repository with one copy of each kind, and what is known of them."""

    work: Workplace
    postgres: PostgresServer
    database: str
    redis: RedisServer
    tablespace: Path
    ids: dict[str, str] = field(default_factory=dict)
    manifests: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def repository(self) -> Path:
        return self.work.local

    def script(
        self,
        *arguments: str,
        expect: int = 0,
        shell: str = "sh",
        key: Path | None = None,
        repository: Path | None = None,
    ) -> tuple[bytes, str]:
        """Run ``restore.sh`` as someone does who has nothing but the repository and the key."""
        script = (repository or self.repository) / "restore.sh"
        program = [shell, "sh"] if shell == "busybox" else [shell]
        done = subprocess.run(
            [*program, str(script), "--key-file", str(key or self.work.key_file), *arguments],
            env=_BARE,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )
        said = done.stderr.decode()
        assert done.returncode == expect, f"{arguments}: {done.returncode}\n{done.stdout[-2000:]!r}\n{said}"
        assert KEY not in said
        assert KEY.encode() not in done.stdout
        return done.stdout, said

    def copy(self, target: Path) -> Path:
        """A copy of the repository that a test may damage."""
        shutil.copytree(self.repository, target)
        return target


@pytest.fixture(scope="module")
def held(postgres17: PostgresServer, _redis8: RedisServer) -> Iterator[Held]:
    for program in ("openssl", "zstd", "gunzip", "tar", "awk", "od"):
        require(program)
    with contextlib.closing(_redis8.client()) as client:
        client.flushall()  # it is the session's server: another module may have filled it
    redis_copies.fill(_redis8)
    database = nasty_database(postgres17)
    with new_workplace() as work:
        tablespace = work.folder.parent / "live-tablespace"
        tablespace.mkdir(mode=0o700)
        if postgres17.owner:
            os.chown(tablespace, *postgres17.owner)
        space = f"space_{os.getpid()}"
        postgres17.execute(f"CREATE TABLESPACE {space} LOCATION '{tablespace}'")
        postgres17.execute(f"CREATE TABLE apart TABLESPACE {space} AS SELECT g FROM generate_series(1, 9) g", database)
        (work.folder / "uploads").mkdir()
        (work.folder / "uploads" / "one.txt").write_text("one")
        (work.folder / "uploads" / "-odd name\n").write_bytes(bytes(range(256)))
        work.add_postgres(postgres17, database)
        work.add_redis(_redis8)
        work.services["assets"] = "{engine: files, paths: [uploads]}"
        work.write_plan()
        held = Held(work, postgres17, database, _redis8, tablespace)
        for name, arguments in {
            "base": ["postgres", "--kind", "base"],
            "custom": ["postgres", "--kind", "dump"],
            "plain": ["postgres", "--kind", "dump", "--format", "plain"],
            "gzip": ["postgres", "--kind", "dump", "--format", "plain", "--compression", "gzip"],
            "rdb": ["redis"],
            "files": ["assets"],
        }.items():
            held.ids[name] = work.backup(*arguments)
            held.manifests[name] = work.json("show", held.ids[name])
        yield held
        postgres17.execute(f'DROP DATABASE "{database}" WITH (FORCE)')
        postgres17.execute(f"DROP TABLESPACE {space}")


def test_recoup_is_not_there_where_the_script_runs() -> None:
    python = shutil.which("python3", path=_BARE["PATH"])
    if python is None:
        return  # no Python at all: all the better
    done = subprocess.run([python, "-c", "import recoup"], env=_BARE, cwd="/", capture_output=True, check=False)
    assert done.returncode != 0
    assert b"No module named 'recoup'" in done.stderr
    assert shutil.which("recoup", path=_BARE["PATH"]) is None


@pytest.mark.parametrize("shell", _SHELLS)
def test_every_shell_lists_and_checks_every_artefact(held: Held, shell: str) -> None:
    require(shell)
    listed, _ = held.script("list", shell=shell)
    assert {line.split()[0] for line in listed.decode().splitlines()} == set(held.ids.values())
    for name in ("files", "gzip") if shell != "dash" else held.ids:
        said, _ = held.script("check", held.ids[name], shell=shell)
        streams = {one["stream"] for one in held.manifests[name]["objects"]}
        assert {line.split(": ")[0] for line in said.decode().splitlines()} == streams


def test_a_base_backup_unpacked_by_the_script_boots_apart_from_the_live_tablespace(held: Held) -> None:
    folder = held.work.folder.parent / "by-hand"
    said, _ = held.script("restore", held.ids["base"], str(folder))
    (spaces,) = [path for path in folder.parent.iterdir() if path.name == "by-hand-tablespaces"]
    assert f"is in {spaces}" in said.decode()
    before = sorted(path.name for path in held.tablespace.rglob("*"))
    if held.postgres.owner:
        subprocess.run(["chown", "-R", "{}:{}".format(*held.postgres.owner), str(spaces)], check=True)
    with PostgresServer(require_found(lambda: find_postgres(17)), data_folder=folder) as restored:
        findings = compare_with_base(held.manifests["base"]["fingerprint"], direct(restored))
        (place,) = restored.execute("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname LIKE 'space%'")
        assert Path(place[0]).is_relative_to(spaces)
        restored.execute("INSERT INTO apart VALUES (10)", held.database)
        restored.execute("CHECKPOINT")
    assert overall(findings) is Verdict.OK, findings
    assert sorted(path.name for path in held.tablespace.rglob("*")) == before
    assert held.postgres.execute("SELECT count(*) FROM apart", held.database) == [(9,)]


@pytest.mark.parametrize("name", ["custom", "plain", "gzip"])
def test_a_dump_unpacked_by_the_script_loads_with_the_servers_own_programs(held: Held, name: str) -> None:
    folder = held.work.folder.parent / f"dump-{name}"
    held.script("restore", held.ids[name], str(folder))
    (file,) = (path for path in folder.iterdir() if path.name != "globals.sql")
    streamed, _ = held.script("stream", held.ids[name], file.name)
    assert streamed == file.read_bytes()
    make_roles(held.postgres, "recoup_owner", 'recoup "odd" reader')
    database = held.postgres.new_database(f"by_hand_{name}")
    environment = {**_BARE, "PGHOST": "127.0.0.1", "PGPORT": str(held.postgres.port), "PGUSER": held.postgres.user}
    if file.suffix == ".dump":
        argv = [held.postgres.program("pg_restore"), "--exit-on-error", "-d", database, str(file)]
    else:
        argv = [held.postgres.program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", str(file)]
    done = subprocess.run(argv, env=environment, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    with direct(held.postgres).session(database) as session:
        now = fingerprint_database(session)
    before = held.manifests[name]["fingerprint"]["databases"][held.database]
    for known in (before, now):  # what belongs to the database itself is no part of a dump of its content
        known["definitions"] = {
            name: text for name, text in known["definitions"].items() if not name.startswith(("setting", "database"))
        }
    findings = compare(before, now, mode=CopyMode.LOGICAL)
    assert overall(findings) is Verdict.OK, findings
    held.postgres.execute(f'DROP DATABASE "{database}" WITH (FORCE)')
    assert database not in databases_of(held.postgres)


def test_an_rdb_unpacked_by_the_script_is_what_redis_starts_with(held: Held) -> None:
    folder = held.work.folder.parent / "rdb"
    held.script("restore", held.ids["rdb"], str(folder))
    fingerprint = held.manifests["rdb"]["fingerprint"]
    with RedisServer(require_found(lambda: find_redis(8))) as fresh:
        fresh.wipe()
        shutil.copy(folder / "dump.rdb", fresh.folder / "dump.rdb")
        (fresh.folder / "dump.rdb").chmod(0o644)
        fresh.start()
        now = redis_copies.fingerprint_now(fresh, fingerprint)
    assert overall(redis_fingerprint.compare(fingerprint, now)) is Verdict.OK


def test_files_unpacked_by_the_script_are_the_same(held: Held) -> None:
    folder = held.work.folder.parent / "files"
    held.script("restore", held.ids["files"], str(folder))
    uploads = next(path for path in folder.rglob("uploads") if path.is_dir())
    assert (uploads / "one.txt").read_text() == "one"
    assert (uploads / "-odd name\n").read_bytes() == bytes(range(256))


def test_the_script_does_not_restore_over_anything(held: Held, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    _, said = held.script("restore", held.ids["files"], str(tmp_path), expect=5)
    assert "is not empty" in said
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def _object(repository: Path, artefact: str) -> Path:
    return max(repository.glob(f"artefacts/*/*/{artefact}/*"), key=lambda path: path.stat().st_size)


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["base", "rdb"])
@pytest.mark.parametrize("harm", ["flipped head", "flipped salt", "flipped middle", "flipped end", "cut", "missing"])
def test_a_damaged_object_is_refused_before_it_is_decrypted(held: Held, tmp_path: Path, name: str, harm: str) -> None:
    repository, artefact = held.copy(tmp_path / "repository"), held.ids[name]
    victim = _object(repository, artefact)
    size = victim.stat().st_size
    match harm:
        case "missing":
            victim.unlink()
        case "cut":
            os.truncate(victim, size - 16)
        case _:
            _flip(victim, {"head": 0, "salt": 9, "middle": size // 2, "end": size - 1}[harm.split()[1]])
    stream = victim.name.removesuffix(".zst.enc")
    for arguments in (["check", artefact], ["stream", artefact, stream], ["restore", artefact, str(tmp_path / "out")]):
        out, said = held.script(*arguments, expect=3, repository=repository)
        assert out == b""
        assert ("is missing" if harm == "missing" else "Nothing was decrypted") in said
    assert not (tmp_path / "out").exists()


def test_a_changed_swapped_or_cut_manifest_is_refused(held: Held, tmp_path: Path) -> None:
    repository = held.copy(tmp_path / "repository")
    manifests = repository / "manifests"
    files, rdb, base, gz = (manifests / f"{held.ids[name]}.json" for name in ("files", "rdb", "base", "gzip"))
    files.write_text(files.read_text().replace('"assets"', '"assetz"'))
    shutil.copy(base, rdb)
    base.write_text("".join(base.read_text().splitlines(keepends=True)[:-1]))
    for name, text in (("files", "not authentic"), ("rdb", "not authentic"), ("base", "no authentication line")):
        _, said = held.script("check", held.ids[name], expect=3, repository=repository)
        assert text in said
    _, said = held.script("list", expect=3, repository=repository)
    # A version from the future is authentic and still not understood.
    body = json.loads(gz.read_text().rpartition('{"authentication"')[0])
    text = json.dumps({**body, "recoup_manifest": 2}, indent=1, sort_keys=True).encode() + b"\n"
    gz.write_bytes(authenticate(Key.from_text(KEY), "manifest", layout.manifest_key(held.ids["gzip"]), text))
    _, said = held.script("check", held.ids["gzip"], expect=4, repository=repository)
    assert "version" in said


def test_a_wrong_a_missing_and_an_unreadable_key_are_said_to_be_that(held: Held, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text(OTHER_KEY + "\n")
    out, said = held.script("restore", held.ids["rdb"], str(tmp_path / "out"), expect=12, key=other)
    assert out == b""
    assert "is sealed with key" in said
    assert not (tmp_path / "out").exists()
    held.script("list", expect=12, key=other)
    _, said = held.script("list", expect=12, key=tmp_path / "none")
    assert "cannot read the key file" in said


def test_wrong_calls_of_the_script_are_answered_with_its_usage(held: Held) -> None:
    for arguments in (["frobnicate"], ["restore", held.ids["rdb"]], ["check"], ["stream", held.ids["rdb"], "no-such"]):
        held.script(*arguments, expect=2)
    _, said = held.script("check", "../../etc/passwd", expect=2)
    assert "not an artefact id" in said
    _, said = held.script("check", "20200101-000000-aaaaaa", expect=2)
    assert "there is no artefact" in said


def test_a_passphrase_works_with_the_script_as_well(work: Workplace, tmp_path: Path) -> None:
    require("zstd")
    phrase = "correct horse 'battery' $staple \\ ünï"
    work.key_file.write_text(phrase + "\n")
    work.secrets.add(phrase)
    (work.folder / "data").mkdir()
    (work.folder / "data" / "file").write_text("content")
    work.services["files"] = "{engine: files, paths: [data]}"
    work.write_plan()
    artefact = work.backup()
    done = subprocess.run(
        [
            "sh",
            str(work.local / "restore.sh"),
            "--key-file",
            str(work.key_file),
            "restore",
            artefact,
            str(tmp_path / "o"),
        ],
        env=_BARE,
        check=True,
        capture_output=True,
    )
    assert phrase not in done.stdout.decode()
    (file,) = (tmp_path / "o").rglob("file")
    assert file.read_text() == "content"
