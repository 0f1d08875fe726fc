"""Images for an engine that reaches no registry, made from the Debian packages installed on this machine.

``postgres:15`` and ``redis:7`` are **stand-ins** for the official images: the same variables, users, folders, ports
and signals, our own entry points (``entrypoints/``). ``api:1`` is a small application in Perl (part of every Debian)
that answers over HTTP only when PostgreSQL and Redis answer it.

Each image is a tar of the programs, the libraries ``ldd`` names and a few data folders, added to ``scratch``.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

HERE = Path(__file__).parent
POSTGRES = Path("/usr/lib/postgresql/15")
SHARE = Path("/usr/share/postgresql/15")
PERL = Path("/usr/lib/x86_64-linux-gnu/perl-base")
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")

#: What people expect to find when they ``exec`` into a container.
TOOLS = (
    *("bash", "basename", "cat", "chmod", "chown", "cp", "date", "dash", "df", "dirname", "du", "env", "find"),
    *(
        "getent",
        "grep",
        "gzip",
        "head",
        "hostname",
        "id",
        "ln",
        "ls",
        "mkdir",
        "mktemp",
        "mv",
        "nproc",
        "od",
        "ps",
        "readlink",
    ),
    *(
        "readlink",
        "rm",
        "rmdir",
        "sed",
        "setpriv",
        "sha256sum",
        "sleep",
        "sort",
        "stat",
        "sync",
        "tail",
        "tar",
        "test",
        "timeout",
    ),
    *("touch", "tr", "true", "wc", "zstd"),
)


class RootFs:
    """A root file system being written as a tar: parents first, every path once, owners by number."""

    def __init__(self, user: str) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w")  # noqa: SIM115 (closed by finish)
        self._seen: set[str] = set()
        for path, mode in (("/dev", 0o755), ("/proc", 0o755), ("/sys", 0o755), ("/run", 0o755), ("/tmp", 0o1777)):
            self.folder(path, mode=mode)
        for name in ("bin", "sbin", "lib", "lib64"):
            self.folder(f"/usr/{name}")
            self.link(f"/{name}", f"usr/{name}")
        self.link("/usr/bin/sh", "dash")
        self.link("/var/run", "/run")
        people = f"root:x:0:0::/root:/bin/bash\n{user}:x:999:999::/home:/bin/bash\nnobody:x:65534:65534::/:/bin/sh\n"
        self.text("/etc/passwd", people)
        self.text("/etc/group", f"root:x:0:\n{user}:x:999:\nnogroup:x:65534:\n")
        self.text("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
        names = [Path("/usr/bin") / tool for tool in TOOLS]
        self.programs([*names, LIBRARIES / "libnss_files.so.2", LIBRARIES / "libnss_dns.so.2"])
        self.tree(Path("/usr/lib/locale/C.utf8"))

    def folder(self, path: str, *, mode: int = 0o755, owner: int = 0) -> None:
        if path == "/" or path in self._seen:
            return
        self.folder(os.path.dirname(path))
        self._add(path, tarfile.DIRTYPE, mode=mode, owner=owner)

    def text(self, path: str, content: str, *, mode: int = 0o644) -> None:
        self.folder(os.path.dirname(path))
        self._add(path, tarfile.REGTYPE, mode=mode, data=content.encode())

    def link(self, path: str, target: str) -> None:
        if path not in self._seen:
            self.folder(os.path.dirname(path))
            self._add(path, tarfile.SYMTYPE, mode=0o777, target=target)

    def tree(self, top: Path, *, skip: Iterable[str] = ()) -> None:
        for folder, names, files in os.walk(top):
            names[:] = [name for name in names if name not in skip]
            self.programs(Path(folder) / file for file in files if not file.startswith("llvmjit"))

    def programs(self, paths: Iterable[Path]) -> None:
        """Files with the libraries they load; links with what they point to; what is not installed is passed over."""
        there = [path for path in paths if os.path.lexists(path)]
        for path in [*there, *_libraries(there)]:
            self._copy(path)

    def finish(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()

    def _copy(self, path: Path) -> None:
        place = str(path.parent.resolve() / path.name)  # /lib is a link to usr/lib on every Debian of today
        if place in self._seen or not os.path.lexists(place):
            return
        self.folder(os.path.dirname(place))
        if os.path.islink(place):
            target = os.readlink(place)
            self._add(place, tarfile.SYMTYPE, mode=0o777, target=target)
            self._copy(Path(os.path.normpath(os.path.join(os.path.dirname(place), target))))
        else:
            self._add(place, tarfile.REGTYPE, mode=os.stat(place).st_mode & 0o7777, data=Path(place).read_bytes())

    def _add(
        self, path: str, kind: bytes, *, mode: int, owner: int = 0, target: str = "", data: bytes | None = None
    ) -> None:
        self._seen.add(path)
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.type, entry.mode, entry.uid, entry.gid, entry.linkname = kind, mode, owner, owner, target
        entry.size = len(data or b"")
        self._tar.addfile(entry, io.BytesIO(data or b""))


def _libraries(paths: Iterable[Path]) -> list[Path]:
    programs = []
    for path in paths:
        if path.is_file():
            with path.open("rb") as handle:
                if handle.read(4) == b"\x7fELF":
                    programs.append(str(path))
    if not programs:
        return []
    said = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False).stdout
    words = {word for line in said.splitlines() for word in line.split() if word.startswith("/")}
    return sorted(Path(word) for word in words if not word.endswith(":"))


def _postgres() -> tuple[str, bytes]:
    root = RootFs("postgres")
    root.tree(POSTGRES / "bin")
    root.tree(POSTGRES / "lib", skip=["bitcode"])
    root.tree(SHARE, skip=["man"])
    root.tree(Path("/usr/share/zoneinfo"), skip=["posix", "right"])
    for program in sorted((POSTGRES / "bin").iterdir()):
        root.link(f"/usr/bin/{program.name}", str(program))
    root.folder("/var/lib/postgresql", owner=999)
    root.folder("/var/lib/postgresql/data", mode=0o700, owner=999)
    root.folder("/docker-entrypoint-initdb.d")
    root.text("/usr/local/bin/docker-entrypoint.sh", (HERE / "entrypoints/postgres.sh").read_text(), mode=0o755)
    return (
        (
            "ENV LANG=C.UTF-8 PG_MAJOR=15 PGDATA=/var/lib/postgresql/data\n"
            "VOLUME /var/lib/postgresql/data\nEXPOSE 5432\n"
            'STOPSIGNAL SIGINT\nENTRYPOINT ["docker-entrypoint.sh"]\nCMD ["postgres"]\n'
        ),
        root.finish(),
    )


def _redis() -> tuple[str, bytes]:
    root = RootFs("redis")
    root.programs(Path("/usr/bin").glob("redis-*"))
    root.folder("/data", owner=999)
    root.text("/usr/local/bin/docker-entrypoint.sh", (HERE / "entrypoints/redis.sh").read_text(), mode=0o755)
    return (
        'VOLUME /data\nWORKDIR /data\nEXPOSE 6379\nENTRYPOINT ["docker-entrypoint.sh"]\nCMD ["redis-server"]\n',
        root.finish(),
    )


def _api() -> tuple[str, bytes]:
    root = RootFs("app")
    root.programs([Path("/usr/bin/perl"), POSTGRES / "bin/psql"])
    root.tree(PERL)
    root.link("/usr/bin/psql", str(POSTGRES / "bin/psql"))
    for name in ("api", "wget"):
        root.text(f"/usr/local/bin/{name}", (HERE / f"entrypoints/{name}.pl").read_text(), mode=0o755)
    return 'USER app\nEXPOSE 3000\nCMD ["api"]\n', root.finish()


RECIPES = {"postgres:15": _postgres, "redis:7": _redis, "api:1": _api}


def build(environment: Mapping[str, str], tags: Iterable[str] = tuple(RECIPES)) -> None:
    """Build images into the engine that ``environment`` names (``DOCKER_HOST``)."""
    for tag in tags:
        dockerfile, root = RECIPES[tag]()
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as tar:
            head = "FROM scratch\nADD root.tar /\nENV PATH=/usr/local/bin:/usr/bin\n"
            for name, data in (("Dockerfile", (head + dockerfile).encode()), ("root.tar", root)):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        subprocess.run(
            ["docker", "build", "--quiet", "--tag", tag, "-"],
            input=context.getvalue(),
            env={**environment, "DOCKER_BUILDKIT": "0"},  # the classic builder needs no plugin
            check=True,
            capture_output=True,
            timeout=120,
        )
