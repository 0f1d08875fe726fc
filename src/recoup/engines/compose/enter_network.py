"""Doing something from inside the network of a container, without a program in it: by its network namespace.

A sandbox's network has no address of this machine (``sandbox_project``), so it cannot be reached from outside. Root on
the engine's own machine can join it: a thread of ours enters the namespace (setns(2)), works there, and ends.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from recoup.engines.compose.docker import ComposeSource, call
from recoup.kernel.errors import UncheckedError

T = TypeVar("T")

_CLONE_NEWNET: Final = 0x40000000
_HINT: Final = "Run `recoup drill` as root on the machine on which the Docker engine runs."


def inside_network(source: ComposeSource, container: str, address: str, work: Callable[[], T]) -> T:
    """Run ``work`` in the network of a running container, which has ``address`` there. What it raises is raised.

    Raise ``UncheckedError`` when this machine, or this user, cannot enter; then nothing was done.
    """
    pid = _process_of(source, container)

    def enter_and_work() -> T:
        _enter(pid, address)
        return work()

    # The network is that of a thread, which ends with the pool. ``work`` has limits of its own.
    with ThreadPoolExecutor(1, thread_name_prefix="inside-network") as pool:
        return pool.submit(enter_and_work).result()


def _process_of(source: ComposeSource, container: str) -> int:
    """The first process of a container, when it is one of this machine: another machine's engine has other numbers."""
    said = call(source.docker("inspect", "--format", "{{.State.Pid}}", container), doing="find the container's process")
    pid = int(said.stdout.decode().strip() or "0")
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text() if pid else ""
    except OSError:
        groups = ""
    if container not in groups:
        raise UncheckedError("the sandbox's network is on another machine than this one", hint=_HINT)
    return pid


def _enter(pid: int, address: str) -> None:
    """Move this thread into the network of a process, and make sure that it is the one with ``address``."""
    try:
        with open(f"/proc/{pid}/ns/net", "rb") as namespace:
            _set_namespace(namespace.fileno())
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))  # only possible where the address is
    except OSError as failure:
        raise UncheckedError(
            f"the sandbox's network cannot be entered: {failure.strerror or failure}", hint=_HINT
        ) from failure


def _set_namespace(handle: int) -> None:
    """setns(2), which Python has from 3.12 on. Raise ``OSError``."""
    if ctypes.CDLL(None, use_errno=True).setns(handle, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
