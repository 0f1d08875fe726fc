"""A folder with a plan, a key and a state of its own, and ``recoup`` called in it as users call it: as a process.

Every call is checked for what must hold whatever it does: no traceback, no bug, no secret in what it prints, a hint
with every refusal. What stays on disk is checked for secrets when the folder is taken down.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recoup.demo.host import temporary_folder, wait_until
from recoup.demo.servers import PostgresServer, RedisServer, S3Server

RECOUP = str(Path(sys.executable).with_name("recoup"))
_KILLED = Path(__file__).with_name("killed_recover.py")
KEY = "00c0ffee" * 8
OTHER_KEY = "0badc0de" * 8


def killed_at(event: str, step: str, when: str) -> list[str]:
    """Instead of ``RECOUP``: the same, but it is killed ``before`` or ``after`` that line of a recovery's journal."""
    return [sys.executable, str(_KILLED), event, step, when]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a call ended."""

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The document it printed; there must be exactly one, with a schema."""
        document = json.loads(self.out)
        assert isinstance(document, dict)
        assert document["schema"].startswith("recoup.")
        return document

    @property
    def error(self) -> dict[str, Any]:
        """The error of a call with ``--json``."""
        assert self.json["schema"] == "recoup.error/1"
        error = self.json["error"]
        assert isinstance(error, dict)
        return error

    @property
    def said(self) -> str:
        """Everything it printed."""
        return self.out + self.err


@dataclass(slots=True, kw_only=True)
class Workplace:
    """Where ``recoup`` is called. ``secrets`` must appear nowhere but in the key file and the environment."""

    folder: Path
    state: Path
    environment: dict[str, str] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    repositories: dict[str, str] = field(default_factory=dict)
    services: dict[str, str] = field(default_factory=dict)
    extra: str = ""

    @property
    def key_file(self) -> Path:
        """The plan's key."""
        return self.folder / "recoup.key"

    @property
    def local(self) -> Path:
        """The folder of the repository ``local``."""
        return self.folder / "backups"

    def secret(self, name: str, value: str) -> str:
        """Put a secret into the environment of every call; what the plan says for it."""
        self.environment[name] = value
        self.secrets.add(value)
        return "${" + name + "}"

    def add_postgres(
        self, server: PostgresServer, *databases: str, name: str = "postgres", more: str = "", user: str | None = None
    ) -> None:
        """Protect databases of a server. Its own programs come first in the PATH."""
        login = user or server.user
        if server.password and user is None:
            login += ":" + self.secret(f"{name.upper()}_PASSWORD", server.password)
        address = f"postgresql://{login}@127.0.0.1:{server.port}/{databases[0] if databases else 'postgres'}"
        self.services[name] = f"{{engine: postgres, url: '{address}', databases: [{', '.join(databases)}]{more}}}"
        self.environment["PATH"] = f"{server.bin}{os.pathsep}{os.environ['PATH']}"

    def add_redis(self, server: RedisServer, *, name: str = "redis") -> None:
        """Protect a Redis."""
        password = ":" + self.secret(f"{name.upper()}_PASSWORD", server.password) + "@" if server.password else ""
        self.services[name] = f"{{engine: redis, url: 'redis://{password}127.0.0.1:{server.port}/0'}}"

    def add_bucket(self, s3: S3Server, *, name: str = "offsite", endpoint: str | None = None) -> str:
        """A repository in a new bucket; the bucket's name."""
        bucket = s3.new_bucket()
        access = self.secret("S3_ACCESS_KEY", s3.access_key)
        secret = self.secret("S3_SECRET_KEY", s3.secret_key)
        self.secrets.discard(s3.access_key)  # an identifier; S3 servers repeat it in their answers
        self.repositories[name] = (
            f"{{url: 's3://{bucket}/production', endpoint: '{endpoint or s3.endpoint}', region: {s3.region}, "
            f"credentials: {{access_key: '{access}', secret_key: '{secret}'}}}}"
        )
        return bucket

    def write_plan(self, name: str = "recoup.yaml") -> Path:
        """Write the plan of what was added."""
        services = "".join(f"  {one}: {text}\n" for one, text in self.services.items())
        repositories = "".join(f"  {one}: {text}\n" for one, text in self.repositories.items())
        path = self.folder / name
        path.write_text(
            f"recoup: 1\nsystem: Shop\nservices:\n{services}repositories:\n{repositories}"
            f"key: {{file: recoup.key}}\n{self.extra}"
        )
        return path

    def start(
        self, *arguments: str, environment: Mapping[str, str] | None = None, terminal: int = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        """Start ``recoup`` in a process group of its own, which ``kill`` ends. ``terminal``: where it reads answers."""
        return subprocess.Popen(
            [RECOUP, *arguments],
            cwd=self.folder,
            env=self._environment(environment or {}),
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[str], expect: int | None = 0, timeout: float = 240) -> Ended:
        """Wait for the end of a call and check what always holds."""
        out, err = process.communicate(timeout=timeout)
        assert isinstance(process.args, list)
        ended = Ended(arguments=tuple(process.args[1:]), code=process.returncode, out=out, err=err)
        self._check(ended, expect)
        return ended

    def recoup(
        self,
        *arguments: str,
        expect: int | None = 0,
        environment: Mapping[str, str] | None = None,
        timeout: float = 240,
    ) -> Ended:
        """Call ``recoup`` and wait for its end, which must be with the code ``expect`` (None: any)."""
        process = self.start(*arguments, environment=environment)
        try:
            return self.finish(process, expect, timeout)
        finally:
            kill(process)

    def json(self, *arguments: str, expect: int | None = 0) -> dict[str, Any]:
        """The document that a call with ``--json`` prints."""
        return self.recoup(*arguments, "--json", expect=expect).json

    def backup(self, *arguments: str, expect: int = 0) -> str:
        """Take one copy and return its id."""
        copies = self.json("backup", *arguments, "--quiet", expect=expect)["copies"]
        assert len(copies) == 1, copies
        return str(copies[0]["id"])

    def listed(self, *arguments: str) -> dict[str, list[str]]:
        """What ``recoup list`` shows: the repositories of each artefact. Nothing may be wrong."""
        document = self.json("list", "-n", "0", *arguments)
        assert document["problems"] == []
        return {one["id"]: one["repositories"] for one in document["artefacts"]}

    def objects(self, artefact: str, repository: Path | None = None) -> list[Path]:
        """The objects of an artefact in the local repository, indexes last."""
        found = [path for path in (repository or self.local).glob(f"artefacts/*/*/{artefact}/*") if path.is_file()]
        return sorted(found, key=lambda path: (path.name.endswith(".index.enc"), path.name))

    def strays(self, repository: Path | None = None) -> list[Path]:
        """Files of the local repository that belong to no artefact: what an interrupted run may leave behind."""
        root = repository or self.local
        ids = {path.stem for path in root.glob("manifests/*.json")}
        files = [path for path in root.rglob("*") if path.is_file() and path.parent != root and path.name != "lock"]
        return [path for path in files if path.stem not in ids and path.parent.name not in ids]

    def unfinished(self) -> list[Path]:
        """Notes of runs that did not end, in the state folder."""
        return [
            path for path in self.state.rglob("*.json") if path.parent.name in ("unfinished", "restores", "placing")
        ]

    def assert_no_secret_on_disk(self) -> None:
        """No secret in the state, in the names of objects, or in what repositories say in the clear."""
        wanted = [secret.encode() for secret in self.secrets]
        for path in [*self.state.rglob("*"), *self.folder.rglob("*")]:
            name = os.fsencode(path)
            assert not any(secret in name for secret in wanted), path
            if (
                path.is_file()
                and path != self.key_file
                and path.name not in ("environment", "key", "other.key", "given")
            ):
                data = path.read_bytes()
                assert not any(secret in data for secret in wanted), path

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("RECOUP_", "PG", "AWS_"))}
        return {**clean, "RECOUP_STATE": str(self.state), **self.environment, **more}

    def _check(self, ended: Ended, expect: int | None) -> None:
        shown = f"{' '.join(ended.arguments)} ended with {ended.code}:\n{ended.out}\n{ended.err}"
        for secret in self.secrets:
            assert secret not in ended.said, f"a secret was printed: {shown}"
        assert "Traceback" not in ended.said, shown
        assert "a bug in Recoup" not in ended.said, shown
        if expect is not None:
            assert ended.code == expect, shown
        if ended.code == 5:
            assert "hint: " in ended.err or '"hint": "' in ended.out, f"a refusal without a way out: {shown}"


def kill(process: subprocess.Popen[str]) -> None:
    """End a call and all its children with SIGKILL, as the machine's end would; harmless when it has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=120)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def s3_environment(s3: S3Server) -> dict[str, str]:
    """What the environment of a machine says of the buckets of a server: where they are, and the key to them."""
    return {
        "AWS_ENDPOINT_URL": s3.endpoint,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "AWS_DEFAULT_REGION": s3.region,
    }


def wait_for(question: Any, what: str, limit_seconds: float = 120, every: float = 0.005) -> None:
    """Ask until it is so; fail with ``what`` when it never is."""
    assert wait_until(question, limit_seconds=limit_seconds, every=every), f"it never happened: {what}"


@contextlib.contextmanager
def new_workplace() -> Iterator[Workplace]:
    """A workplace with a key and one repository, the folder ``backups``; without services and a plan file."""
    with temporary_folder("cli", mode=0o755) as root:
        folder, state = root / "stack", root / "state"
        folder.mkdir(mode=0o755)
        place = Workplace(folder=folder, state=state, secrets={KEY, OTHER_KEY})
        place.key_file.write_text(KEY + "\n")
        (folder / "other.key").write_text(OTHER_KEY + "\n")
        place.repositories["local"] = "{path: backups}"
        yield place
        place.assert_no_secret_on_disk()
