"""Ends servers and removes folders that a killed process left behind. A program of its own: nothing is imported.

It reads one JSON line for each thing to look after, and one to let it go again. When the pipe ends, because the
process that wrote to it is gone (also by ``kill -9``), it ends what is still there and removes the folders. Servers
are known by process id *and* start time, so that a number used again by a stranger is left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

_PATIENCE_SECONDS = 5.0


def start_time(process_id: int) -> str | None:
    """When a process started, in the kernel's ticks (field 22 of proc(5) ``stat``), or None when it is gone."""
    try:
        with open(f"/proc/{process_id}/stat", encoding="utf-8", errors="replace") as handle:
            fields = handle.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def main() -> None:
    """Read what to look after until the pipe ends, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    servers: dict[int, tuple[str, int]] = {}
    folders: set[str] = set()
    patterns: set[str] = set()
    for line in sys.stdin:
        try:
            order = json.loads(line)
        except ValueError:  # the writer was killed in the middle of a line
            break
        if "server" in order:
            servers[order["server"]] = (order["started"], order["signal"])
        elif "ended" in order:
            servers.pop(order["ended"], None)
        elif "folder" in order:
            folders.add(order["folder"])
        elif "removed" in order:
            folders.discard(order["removed"])
        elif "files" in order:
            patterns.add(order["files"])
        elif "unlinked" in order:
            patterns.discard(order["unlinked"])
    _end(servers)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    for pattern in patterns:
        folder, _, names = pattern.rpartition("/")
        for path in Path(folder).glob(names):
            with contextlib.suppress(OSError):
                path.unlink()


def _end(servers: dict[int, tuple[str, int]]) -> None:
    def alive() -> list[int]:
        return [number for number, (started, _) in servers.items() if start_time(number) == started]

    for number in alive():
        _send(number, servers[number][1])
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    for number in alive():
        _send(number, signal.SIGKILL)


def _send(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    main()
