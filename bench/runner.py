"""Runs one command and reports what it took: ``python -I -S runner.py FD UID PROGRAM ARGUMENT...``.

A program of its own, because Linux keeps the peak memory of a process over ``exec``, and a new process begins with
that of the one it came from. Started by the bench itself, every small program would seem to need as much memory as
the bench; this one has 10 MiB. A ``UID`` of -1 leaves the user as it is.
``PROGRAM`` is a path: another user may not be able to read what Python needs to look for it.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main() -> int:
    """Run the command; write time, processor time (of it and all its children) and peak memory as JSON to ``FD``."""
    report, user, argv = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    os.set_inheritable(report, False)
    begun = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()  # each in a session of its own, as a service or a cron job has it
            if user >= 0:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            os.execv(argv[0], argv)
        except OSError as failure:
            os.write(2, f"{argv[0]}: {failure}\n".encode())
        finally:
            os._exit(127)
    _, status, usage = os.wait4(pid, 0)
    # The times are summed over the command and the children it waited for; the memory is that of the largest of them.
    said = {
        "seconds": time.perf_counter() - begun,
        "code": os.waitstatus_to_exitcode(status),
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
    }
    os.write(report, json.dumps(said).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
