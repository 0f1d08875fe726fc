"""Where the tests put their files: into memory when this machine has plenty, which halves the time they take.

Servers, repositories and restores write and remove thousands of files and sync them; no test cuts the power of the
machine it runs on, so nothing that is shown depends on a disk. ``TMPDIR`` set by the caller is left alone.

The memory is a file system of its own, below ``/tmp``, so it takes root. ``/dev/shm`` will not do: what lies below
``/dev`` is the machine's and no data, for Recoup as well.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

_BASE = Path("/tmp")
_PREFIX = "recoup-"  # and the number of the process; short: the path of a socket ends at 107 bytes
_NEEDED_BYTES = 10 << 30


def use_memory() -> Path | None:
    """Let this process and those it starts put temporary files into memory; None where that is not done."""
    if "TMPDIR" in os.environ or os.geteuid() != 0 or _available() < _NEEDED_BYTES:
        return None
    # Left by a run that failed, for somebody to look into, or that was killed.
    for left in _BASE.glob(f"{_PREFIX}[0-9]*"):
        number = left.name.removeprefix(_PREFIX)
        if number.isdecimal() and not Path("/proc", number).exists():
            give_back(left)
    folder = _BASE / f"{_PREFIX}{os.getpid()}"
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "mode=1777", "recoup-tests", str(folder)]  # as /tmp: servers are not root
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        folder.rmdir()
        return None
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None
    return folder


def give_back(folder: Path) -> None:
    """Free the memory, also while something that ends still has files there."""
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), 0)
