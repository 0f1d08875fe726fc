"""Who this process is, so that another one, or the same machine later, can tell whether it still lives."""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import dataclass
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_MACHINE = Path("/etc/machine-id")
_NAMESPACE = Path("/proc/self/ns/pid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """One process on one machine. An empty text: it could not be found out, and proves nothing.

    ``boot`` names the present start of the machine (random(4)), ``machine`` the installation (machine-id(5)),
    ``namespace`` in which process ids count (pid_namespaces(7)), ``started`` when the process began, in clock ticks
    since the start of the machine (proc(5), field 22): a process id is given out again, this is not.
    """

    host: str
    machine: str
    boot: str
    namespace: str
    pid: int
    started: str


def myself() -> Presence:
    """This process."""
    return Presence(
        host=socket.gethostname(),
        machine=_read(_MACHINE),
        boot=boot_id(),
        namespace=_namespace(),
        pid=os.getpid(),
        started=_started(os.getpid()),
    )


def boot_id() -> str:
    """What the kernel calls the present start of this machine; empty where it does not say."""
    return _read(_BOOT)


def is_dead(other: Presence, me: Presence) -> bool:
    """Whether ``other`` is proven to be gone, as seen from ``me``, a process of this machine. False: it is not known.

    It is gone when its machine was started anew since, or when nothing has its process id any more where it counts.
    """
    if other.boot and other.boot == me.boot:
        same_count = other.namespace != "" and other.namespace == me.namespace
        return same_count and other.started != "" and _is_gone(other)
    same_machine = other.machine != "" and (other.machine, other.host) == (me.machine, me.host)
    return same_machine and other.boot != "" and me.boot != ""


def login_name() -> str:
    """The name of the user of this process, as far as the system knows one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "an unknown user"


def stat_fields(pid: int) -> list[str]:
    """What proc(5) says of a process, from its third field on: its state, its parent's id, … Raise ``OSError``.

    The field before may hold anything, blanks and brackets too: it is the program's name.
    """
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return str(_NAMESPACE.readlink())
    except OSError:
        return ""


def _is_gone(other: Presence) -> bool:
    try:
        os.kill(other.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's, whose entry in /proc may be hidden
        pass
    try:
        fields = stat_fields(other.pid)
    except OSError:
        return False
    return fields[0] in "ZX" or fields[19] != other.started


def _started(pid: int) -> str:
    try:
        return stat_fields(pid)[19]
    except OSError:
        return ""
