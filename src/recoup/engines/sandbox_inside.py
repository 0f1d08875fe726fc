"""Becomes a program of a sandbox. A program of its own: nothing of ours is imported.

``unshare`` has given it namespaces of its own; here it hides in them what leads out by the file system (the sockets
of this machine's other services, the sandboxes beside its own), becomes a user without rights, forgets the
environment that is not meant for it, and then the program that it was called for.

Calls of the kernel: mount(2), unshare(2), user_namespaces(7), prctl(2).
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC = 2, 4, 8, 4096, 16384
_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Read the order (JSON) and the program from the arguments, and become it."""
    order, argv = json.loads(sys.argv[1]), sys.argv[2:]
    try:
        if order["hide"] is not None:
            _hide(order["hide"], order["keep"])
        _give_up_rights(order)
        environment = {
            name: value for name, value in os.environ.items() if name in order["variables"] or name.startswith("LC_")
        }
        os.execvpe(argv[0], argv, environment)  # noqa: S606 it becomes the program, there is no shell
    except OSError as failure:
        where = f"{failure.filename}: " if failure.filename else ""
        os.write(2, f"{argv[0]} cannot be run in the sandbox: {where}{failure.strerror}\n".encode())
        raise SystemExit(127) from None


def _hide(hidden: list[str], kept: list[str]) -> None:
    """Cover folders with empty ones and files with nothing, the outer first, and put back what is kept."""
    handles = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in kept}
    for path in sorted(hidden, key=lambda path: path.count("/")):
        if Path(path).is_dir():
            _mount("tmpfs", path, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "size=1m,mode=755")
        elif Path(path).exists():
            _mount("/dev/null", path, None, _MS_BIND)
    for path, handle in handles.items():
        if Path(path).exists() and os.path.samestat(os.stat(path), os.fstat(handle)):
            continue
        source = f"/proc/self/fd/{handle}"
        if Path(source).is_dir():
            Path(path).mkdir(parents=True, exist_ok=True)
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).touch()
        _mount(source, path, None, _MS_BIND | _MS_REC)


def _give_up_rights(order: dict[str, Any]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if order["user"] is not None:
        uid, gid = order["user"]
        if order["mapped"]:
            # Root of this namespace only, which is an ordinary user outside: become that one again.
            _call("unshare", _CLONE_NEWUSER)
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/gid_map").write_text(f"{gid} 0 1")
            Path("/proc/self/uid_map").write_text(f"{uid} 0 1")
        else:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if order["dies"]:
        # What unshare had set was forgotten with the change of the user.
        _call("prctl", _PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    _call(
        "mount",
        os.fsencode(source),
        os.fsencode(target),
        None if kind is None else kind.encode(),
        ctypes.c_ulong(flags),
        options.encode() or None,
        path=target,
    )


def _call(name: str, *arguments: object, path: str | None = None) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}", path)


if __name__ == "__main__":
    main()
