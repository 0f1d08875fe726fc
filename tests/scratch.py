"""Where the tests put their files: into memory when this machine has plenty, which halves the time they take.

Servers, repositories and restores write and remove thousands of files and sync them; no test cuts the power of the
machine it runs on, so nothing that is shown depends on a disk. ``TMPDIR`` set by the caller is left alone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")
_PREFIX = "recoup-"  # and the number of the process; short: the path of a socket ends at 107 bytes
_NEEDED_BYTES = 8 << 30


def use_memory() -> Path | None:
    """Let this process and those it starts put temporary files into a folder in memory; None where that is not done.

    Raise ``OSError`` when the folder cannot be made.
    """
    if "TMPDIR" in os.environ or not _plenty():
        return None
    # Left by a run that failed, for somebody to look into, or that was killed.
    for left in _MEMORY.glob(f"{_PREFIX}[0-9]*"):
        if not Path("/proc", left.name.removeprefix(_PREFIX)).exists():
            shutil.rmtree(left, ignore_errors=True)
    folder = _MEMORY / f"{_PREFIX}{os.getpid()}"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o1777)  # as /tmp: servers run as another user
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None
    return folder


def _plenty() -> bool:
    try:
        seen = os.statvfs(_MEMORY)
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return False
    available = next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), 0)
    return seen.f_bavail * seen.f_frsize >= _NEEDED_BYTES and available >= _NEEDED_BYTES + (2 << 30)
