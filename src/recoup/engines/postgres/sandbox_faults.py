"""What it means when PostgreSQL cannot work with a restored copy: the copy is bad, or this machine lacks something.

Only for what this machine lacks there is a list; whatever else a server dies of while it reads a copy is the copy's
own fault. The texts are those of PostgreSQL 14 to 18 with ``lc_messages`` C.
"""

from __future__ import annotations

import re
from typing import Final

from recoup.engines.postgres.lsn import Lsn
from recoup.kernel.errors import DamageError, UncheckedError

_LOG_FAULT: Final = re.compile(r"^.*?\b(?:FATAL|PANIC):  (.*)$", re.MULTILINE)
_CONSISTENT: Final = re.compile(r"(?:consistent recovery state reached at|redo done at) ([0-9A-F]+/[0-9A-F]+)")
_KILLED: Final = re.compile(r"terminated by signal (?:9|15)\b")

_EXTENSION: Final = "Install the package that holds it, of the version that production has, on this machine."
_LOCALE: Final = "Make the locale known to this machine (locale-gen), as it is where production runs."
_ROOM: Final = "Make room, or put the state folder on a larger disk ($RECOUP_STATE)."
_BUILD: Final = "Install the same build as production has: block size and segment size are part of it."
_DISK: Final = "See the system's log: the disk of the sandbox fails, and not the copy."
_OWN_WAL: Final = "the extension that writes WAL records of its own (resource manager {0})"
_MEMORY: Final = "Give this machine more memory, or verify when less runs on it."

#: What a message says, what is missing then (with its groups), and what to do.
_LACKING: Final[tuple[tuple[str, str, str], ...]] = (
    (r'could not access file "([^"]+)"', "the library {0}", _EXTENSION),
    (r'could not load library "([^"]+)"', "the library {0}", _EXTENSION),
    (r"resource manager with ID (\d+) not registered", _OWN_WAL, _EXTENSION),
    (r'extension "([^"]+)" is not available', "the extension {0}", _EXTENSION),
    (r'extension control file "[^"]*?([^/"]+)\.control"', "the extension {0}", _EXTENSION),
    (r'extension "([^"]+)" must be (?:pre)?loaded', "the preloaded library of the extension {0}", _EXTENSION),
    (r"lacks extensions that the copy needs: (.+)", "the extensions {0}", _EXTENSION),
    (r'initialized with LC_(?:COLLATE|CTYPE) ["“]([^"”]+)["”]', "the locale {0}", _LOCALE),
    (r"locale is incompatible with operating system", "a locale of the copy", _LOCALE),
    (r'invalid (?:LC_COLLATE |LC_CTYPE )?locale name:? ?"?([^"]*)"?', "the locale {0}", _LOCALE),
    (r'could not (?:create locale|open collator for locale) "([^"]+)"', "the locale {0}", _LOCALE),
    (r"ICU is not supported", "a PostgreSQL that was built with ICU", "Install the same build as production has."),
    (r"No space left on device|Disk quota exceeded", "room on the disk", _ROOM),
    (r"out of memory|Cannot allocate memory|could not map anonymous shared memory", "memory", _MEMORY),
    (r"could not create shared memory segment|No more semaphores|could not create semaphores",
     "shared memory or semaphores", "Raise the limits of the system (kernel.shmmni, kernel.sem)."),
    (r"Too many open files", "file handles", "Raise the limit of open files (ulimit -n)."),
    (r"Input/output error|Read-only file system", "a disk that works", _DISK),
    (r"compiled with|compiled without", "a PostgreSQL that was built as the one of the copy", _BUILD),
    (r"canceling statement due to|terminating connection due to|timeout expired|server closed the connection",
     "time, or a server that goes on", "Verify when less runs on this machine."),
    (r"tablespace \"([^\"]+)\" does not exist", "the tablespace {0}, which the copy's globals do not hold",
     "Take dumps as a superuser: then they hold roles and tablespaces."),
    (r"unsupported version \(.*\) in file header", "a newer pg_restore", "Install the newest minor version."),
)  # fmt: skip


def lacking(said: str) -> UncheckedError | None:
    """Given what PostgreSQL or one of its programs said, the error when this machine lacks something; else None."""
    for pattern, what, hint in _LACKING:
        match = re.search(pattern, said)
        if match is not None:
            return UncheckedError(f"this machine lacks {what.format(*match.groups())}: {first_line(said)}", hint=hint)
    return None


def lacks_means(said: str) -> bool:
    """Whether what PostgreSQL said is about this machine alone: it lacks something, or the server was killed."""
    return lacking(said) is not None or _KILLED.search(said) is not None


def judge_start(log: str, *, exit_status: int, major: int) -> DamageError | UncheckedError:
    """Given the log of a server that did not start on a copy, and how it ended, return what that says of the copy."""
    said = _LOG_FAULT.findall(log)
    missing = lacking("\n".join(said) + "\n" + _details(log))
    if missing is not None:
        return missing
    if not said:
        how = f"status {exit_status}" if exit_status >= 0 else f"signal {-exit_status}"
        last = log.strip().splitlines()[-1:] or ["it said nothing"]
        crashed = "terminated by signal" in log and not _KILLED.search(log)
        if crashed:
            return DamageError(f"PostgreSQL {major} crashed while it read the copy: {last[0]}")
        return UncheckedError(
            f"PostgreSQL {major} ended without saying why ({how}): {last[0]}",
            hint="Was it killed for want of memory? The system's log says so (journalctl -k).",
        )
    return DamageError(
        f"PostgreSQL {major} cannot start on the restored copy: {'; '.join(dict.fromkeys(said))}",
        hint="Do not count on this copy. Verify the one before it, and take a new one.",
    )


def _details(log: str) -> str:
    return "\n".join(line for line in log.splitlines() if re.search(r"\b(?:DETAIL|HINT|ERROR):  ", line))


def first_line(said: str) -> str:
    """The first line of a text that has one, shortened."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return (lines[0] if lines else "")[:400]


def consistent_at(log: str) -> Lsn | None:
    """How far the log says that recovery came, and was consistent. None when it says nothing of it."""
    reached = [Lsn.parse(text) for text in _CONSISTENT.findall(log)]
    return max(reached) if reached else None
