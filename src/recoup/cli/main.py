"""The entry point: runs a command and turns every way it can end into an exit code and a text."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from recoup.cli.output import (
    OutputFailedError,
    OutputGoneError,
    clean,
    guarded_stdout,
    to_json,
    write_error,
    write_out,
)
from recoup.kernel import leash
from recoup.kernel.errors import Exit, PlanError, RecoupError

# Typer carries its own copy of click since 0.22; this finds the class in both arrangements
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_BUG_HINT = "Run the same command with RECOUP_DEBUG=1 and report what it prints; check it for secrets first."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. Prints; never raises."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = given[: given.index("--")] if "--" in given else given
    as_json = "--json" in options
    leash.follow()
    debug = "--debug" in options or os.environ.get("RECOUP_DEBUG", "") not in ("", "0")
    with _stopping_as_interrupting(), guarded_stdout() as stdout:
        code = _guarded(given, as_json=as_json, debug=debug)
        try:
            stdout.flush()  # here, where a failure can be told apart from a bug
        except OutputGoneError:
            pass
        except OutputFailedError as error:
            code = code or _report(error, as_json=False)
    return code


def _guarded(arguments: list[str], *, as_json: bool, debug: bool) -> int:
    try:
        return _run(arguments, as_json=as_json)
    except OutputGoneError:
        return int(Exit.FAILED)  # `recoup list | head`: nobody listens any more
    except RecoupError as error:
        if debug:
            _write_traceback()
        return _report(error, as_json=as_json and not isinstance(error, OutputFailedError))
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(as_json=as_json)
    except BaseException as error:  # noqa: BLE001 - the outermost edge: what arrives here is a bug, and is said to be one
        if isinstance(error, SystemExit) and not isinstance(error.__context__, OSError):
            return error.code if isinstance(error.code, int) else int(Exit.FAILED if error.code else Exit.OK)
        if debug:
            _write_traceback()
        # Typer makes a silent exit of any broken pipe, also of one to a child
        cause = error.__context__ if isinstance(error, SystemExit) and error.__context__ else error
        return _bug(cause, as_json=as_json)


def _run(arguments: list[str], *, as_json: bool) -> int:
    from recoup.cli.app import build

    command = typer.main.get_command(build(arguments))
    try:
        result = command.main(args=arguments, prog_name="recoup", standalone_mode=False)
    except _UsageError as wrong:
        return _usage(wrong, as_json=as_json)
    if result == Exit.INTERRUPTED and not isinstance(result, Exit):
        return _interrupted(as_json=as_json)  # how Typer hands on a KeyboardInterrupt
    return int(result) if isinstance(result, int) else int(Exit.OK)


def _usage(wrong: Exception, *, as_json: bool) -> int:
    context: Any = getattr(wrong, "ctx", None)
    path = context.command_path if context is not None else "recoup"
    text: str = getattr(wrong, "format_message", lambda: "")()
    if type(wrong).__name__ == "NoArgsIsHelpError":  # `recoup` or `recoup key` alone: the text is the help
        write_error(text.rstrip("\n") + "\n")
        return int(Exit.USAGE)
    message = text[:1].lower() + text[1:].rstrip(".")
    return _say(message, f"See `{path} --help`.", Exit.USAGE, kind="UsageError", as_json=as_json)


def _report(error: RecoupError, *, as_json: bool) -> int:
    faults = [
        {
            "line": fault.position.line,
            "column": fault.position.column,
            "path": ".".join(str(part) for part in fault.path),
            "what": fault.what,
        }
        for fault in getattr(error, "faults", ())
    ]
    more: dict[str, Any] = {"faults": faults, "file": getattr(error, "file", None)} if faults else {}
    bare = isinstance(error, PlanError) and bool(faults)  # file:line:column first, so that editors find the place
    return _say(
        error.message,
        error.hint,
        error.exit_code,
        kind=type(error).__name__,
        as_json=as_json,
        bare=bare,
        more={"may_retry": error.may_retry, **more},
    )


def _interrupted(*, as_json: bool) -> int:
    return _say("interrupted", "The same command resumes.", Exit.INTERRUPTED, kind="Interrupted", as_json=as_json)


def _bug(error: BaseException, *, as_json: bool) -> int:
    # The text of a foreign exception may hold anything, a password too: its type and place are enough to find it.
    name, where = type(error).__qualname__, _place_of(error)
    message = f"this is a bug in Recoup: {name}{where}; what was being done did not finish"
    return _say(message, _BUG_HINT, Exit.FAILED, kind=name, as_json=as_json, more={"bug": True})


def _say(
    message: str,
    hint: str | None,
    code: Exit,
    *,
    kind: str,
    as_json: bool,
    bare: bool = False,
    more: dict[str, Any] | None = None,
) -> int:
    with contextlib.suppress(OSError, OutputGoneError, OutputFailedError):  # the exit code still tells
        if as_json:
            error = {"kind": kind, "message": message, "hint": hint, "exit_code": int(code), **(more or {})}
            write_out(to_json({"schema": "recoup.error/1", "error": error}))
        prefix = "" if bare else "recoup: "
        write_error(clean(f"{prefix}{message}\n", keep_newlines=True))
        if hint:
            write_error(clean(f"hint: {hint}\n", keep_newlines=True))
    return int(code)


def _place_of(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    file = trace.tb_frame.f_code.co_filename
    short = "/".join(Path(file).parts[-3:])
    return f" in {short} line {trace.tb_lineno}"


def _write_traceback() -> None:
    import traceback

    write_error(traceback.format_exc())


@contextlib.contextmanager
def _stopping_as_interrupting() -> Iterator[None]:
    """SIGTERM and SIGHUP end a run as Ctrl-C does: unwinding, so that nothing is left half-written."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before: dict[signal.Signals, Any] = {}
    with contextlib.suppress(ValueError):  # not the main thread
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:  # nohup's choice is kept
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
