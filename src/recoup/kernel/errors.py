"""The errors Recoup raises, their exit codes, and what the user can do about each.

One root class. Every error a user can cause carries a message (what and where, lower case, no final stop), a hint
(what to do, a full sentence) and an exit code from the table below. Only ``cli`` turns an error into text; nothing
else prints. An exception that is not a ``RecoupError`` is a bug in Recoup.
"""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """The exit codes of every command. Stable: people's scripts depend on them."""

    OK = 0  #: done and proven
    FAILED = 1  #: failed
    USAGE = 2  #: wrong usage or plan file
    BAD = 3  #: checked, and it is bad
    UNKNOWN = 4  #: could not be checked
    REFUSED = 5  #: refused, to protect data
    BUSY = 6  #: another run holds the lease
    NO_REPOSITORY = 10  #: no repository there
    WRONG_KEY = 12  #: wrong or missing key
    INTERRUPTED = 130  #: interrupted; the same command resumes


class RecoupError(Exception):
    """Something failed. ``hint`` says what to do; ``may_retry`` says whether waiting and trying again can help."""

    exit_code: Exit = Exit.FAILED
    may_retry: bool = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(RecoupError):
    """The command was called in a way that makes no sense."""

    exit_code = Exit.USAGE


class PlanError(RecoupError):
    """The plan file is wrong. The message lists every fault as ``file:line:column: path: what``."""

    exit_code = Exit.USAGE


class DamageError(RecoupError):
    """Stored bytes are not what they were when they were written: missing, changed, truncated or swapped."""

    exit_code = Exit.BAD


class UnknownFormatError(RecoupError):
    """The bytes claim a format or version that this Recoup does not know. Nothing was read further."""

    exit_code = Exit.UNKNOWN


class UncheckedError(RecoupError):
    """A question could not be answered either way. Unknown is never ok."""

    exit_code = Exit.UNKNOWN


class RefusedError(RecoupError):
    """Recoup could do it and will not, because data would be lost or replaced without account."""

    exit_code = Exit.REFUSED


class BusyError(RecoupError):
    """Another run holds the lease."""

    exit_code = Exit.BUSY


class NoRepositoryError(RecoupError):
    """There is no Recoup repository at that address."""

    exit_code = Exit.NO_REPOSITORY


class WrongKeyError(RecoupError):
    """The key is missing, unreadable, or not the one that sealed these bytes."""

    exit_code = Exit.WRONG_KEY


class StorageError(RecoupError):
    """The place where copies live refused, failed or did not answer."""


class TransientStorageError(StorageError):
    """As ``StorageError``, and trying again may help (time-outs, 5xx answers, throttling)."""

    may_retry = True


class MissingObjectError(StorageError):
    """There is no object with that key. Not to be confused with "could not find out"."""


class MissingBucketError(StorageError):
    """The bucket itself is not there, so no repository is."""

    exit_code = Exit.NO_REPOSITORY


class EngineError(RecoupError):
    """A protected service, or one of its programs, refused, failed or did not answer."""


class InterruptedRunError(RecoupError):
    """The user or the system stopped the run; the same command resumes."""

    exit_code = Exit.INTERRUPTED
