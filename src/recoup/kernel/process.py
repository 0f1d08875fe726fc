"""The only place that starts processes. A command is a value; secrets travel in its environment, never in argv.

There is no shell anywhere. A command's ``environment`` is *added* to a small inherited one. Children get their own
process group, so a time-out or an interrupt ends the whole family.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from recoup.kernel.errors import EngineError
from recoup.kernel.secret import Secret

_TAIL_BYTES = 8192
#: A tenth of the weight of an ordinary process when the processors are all busy (``sched_prio_to_weight`` in Linux).
_NICENESS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One program call. ``environment`` values that are ``Secret`` are revealed to the child only.

    ``without`` are variables of this process that the child does not inherit.
    """

    argv: Sequence[str]
    environment: Mapping[str, str | Secret] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    folder: Path | None = None
    timeout_seconds: float | None = None
    user: tuple[int, int] | None = None  #: run as this (uid, gid) without supplementary groups; needs root

    def __str__(self) -> str:
        return " ".join(self.argv)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """How a command ended. ``stderr`` is cut to its last 8 KiB."""

    command: Command
    exit_status: int
    stdout: bytes
    stderr: str


class Runner(Protocol):
    """Where a command runs: on this machine, or inside a container. ``wrap`` returns what to start here."""

    def wrap(self, command: Command) -> Command:
        """Given a command for *there*, return the command that runs it from *here*. Secrets stay out of argv."""
        ...

    def __str__(self) -> str: ...


class LocalRunner:
    """Runs commands on this machine."""

    def wrap(self, command: Command) -> Command:
        """Given a command, return it unchanged."""
        return command

    def __str__(self) -> str:
        return "this machine"


def _environment(command: Command) -> dict[str, str]:
    private = command.without
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "REDISCLI_")) and k not in private}
    added = {k: v.reveal() if isinstance(v, Secret) else v for k, v in command.environment.items()}
    return {**inherited, **added}


def _start(
    command: Command, *, stdin: int | IO[bytes], stdout: int | IO[bytes], stderr: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    identity = {} if command.user is None else {"user": command.user[0], "group": command.user[1], "extra_groups": []}
    try:
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            list(command.argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=_environment(command),
            cwd=command.folder,
            start_new_session=True,
            **identity,
        )
    except FileNotFoundError as missing:
        raise EngineError(
            f"program not found: {command.argv[0]}", hint=f"Install it, or correct the PATH of the user {os.getuid()}."
        ) from missing
    except OSError as failure:
        raise EngineError(f"cannot start {command.argv[0]}: {failure.strerror or failure}") from failure


def end_family(child: subprocess.Popen[bytes], *, grace_seconds: float = 5.0) -> None:
    """End a child and everything it started: SIGTERM, a bounded wait, SIGKILL. Returns when the child is reaped."""
    for number, patience in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        try:
            child.wait(timeout=patience)
            return
        except subprocess.TimeoutExpired:
            continue


def run(command: Command, *, stdin: bytes | None = None, expect: Sequence[int] | None = (0,)) -> Completed:
    """Run a command to its end and return what it said.

    Raise ``EngineError`` when it cannot be started, takes longer than its time limit (the whole family is ended), or
    ends with a status outside ``expect`` (``None`` accepts any).
    """
    with tempfile.TemporaryFile() as errors:
        child = _start(
            command,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            stdout, _ = child.communicate(stdin, timeout=command.timeout_seconds)
        except subprocess.TimeoutExpired as late:
            end_family(child)
            raise EngineError(
                f"{command.argv[0]} took longer than {command.timeout_seconds:g} s and was stopped: {command}"
            ) from late
        except BaseException:
            end_family(child)
            raise
        completed = Completed(command=command, exit_status=child.returncode, stdout=stdout, stderr=_tail(errors))
    if expect is not None and completed.exit_status not in expect:
        raise failure_of(completed)
    return completed


def failure_of(completed: Completed) -> EngineError:
    """The error for a command that ended badly: its name, its status, and the last lines it wrote."""
    said = completed.stderr.strip() or completed.stdout[-_TAIL_BYTES:].decode(errors="replace").strip()
    how = (
        f"was killed by signal {-completed.exit_status}"
        if completed.exit_status < 0
        else f"ended with status {completed.exit_status}"
    )
    return EngineError(f"{completed.command.argv[0]} {how}" + (f": {said}" if said else " and said nothing"))


def run_attached(command: Command) -> int:
    """Run a command with this process's own terminal, input and output, to its end; return its status.

    It stays in the group of this process, so that the keys that interrupt reach it. Raise ``EngineError`` when it
    cannot be started.
    """
    try:
        child = subprocess.Popen(list(command.argv), env=_environment(command), cwd=command.folder)
    except OSError as failure:
        raise EngineError(f"cannot start {command.argv[0]}: {failure.strerror or failure}") from failure
    try:
        return child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise


class Child:
    """A running command with open pipes. Use through ``open_child``."""

    def __init__(self, process: subprocess.Popen[bytes], command: Command, errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors
        self.command = command

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its process group."""
        return self._process.pid

    @property
    def stdin(self) -> IO[bytes]:
        """The pipe to the child. Only when opened with ``stdin=True``."""
        assert self._process.stdin is not None, "opened without stdin"
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """The pipe from the child."""
        assert self._process.stdout is not None, "opened without stdout"
        return self._process.stdout

    def alive(self) -> bool:
        """Whether the child has not ended yet."""
        return self._process.poll() is None

    def wait(self, timeout_seconds: float | None = None) -> Completed:
        """Wait for the end and return it, whatever the status. Raise ``EngineError`` on time-out, after killing."""
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired as late:
            end_family(self._process)
            raise EngineError(
                f"{self.command.argv[0]} did not end within {timeout_seconds:g} s and was stopped"
            ) from late
        return Completed(
            command=self.command, exit_status=self._process.returncode, stdout=b"", stderr=_tail(self._errors)
        )

    def require_success(self, timeout_seconds: float | None = None) -> None:
        """Wait for the end; raise ``EngineError`` with the last lines of stderr unless the status is 0."""
        completed = self.wait(timeout_seconds)
        if completed.exit_status != 0:
            raise failure_of(completed)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole family. Harmless when it has ended."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def end(self) -> None:
        """End the whole family now, if it is still there."""
        if self.alive():
            end_family(self._process)


@contextlib.contextmanager
def open_child(command: Command, *, stdin: bool = False, stdout: bool = True) -> Iterator[Child]:
    """Start a command with pipes; on leaving, its pipes are closed and, if still running, its family is ended.

    Leaving does *not* check the exit status: call ``require_success`` inside.
    """
    with tempfile.TemporaryFile() as errors:
        process = _start(
            command,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE if stdout else subprocess.DEVNULL,
            stderr=errors,
        )
        child = Child(process, command, errors)
        try:
            yield child
        finally:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            child.end()
            process.wait()


def spawn(command: Command, *, log: IO[bytes], stdin: bool = False) -> Child:
    """Start a server: a command that outlives this call. All it says goes to ``log``; the caller ends the child.

    ``log`` must be open for appending and reading, so that reading its tail never moves where the child writes.
    """
    process = _start(command, stdin=subprocess.PIPE if stdin else subprocess.DEVNULL, stdout=log, stderr=log)
    return Child(process, command, log)


def _tail(errors: IO[bytes]) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - _TAIL_BYTES))
    return errors.read().decode(errors="replace")


def give_way() -> None:
    """Let everything else on this machine go first: this process, and what it starts from now on, get what is left.

    On a machine with nothing else to do it costs nothing. Call it before any thread is started. Never raises: where
    it is not allowed, the work goes on as it is.

    Where the kernel shares the processors out between sessions first (``sched_autogroup_enabled``, sched(7)), niceness
    counts inside a session only, so the session's own is set as well; but only of a session that is ours, as those of
    services and cron jobs are, and never of somebody's terminal.
    """
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    with contextlib.suppress(OSError):
        if os.getsid(0) == os.getpid():
            Path("/proc/self/autogroup").write_text(str(_NICENESS))
