"""Fill an empty database through the server's own pg_restore or psql, streaming, stopping at the first error."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from recoup.engines.postgres.access import ServerAccess, dbname_argument
from recoup.engines.postgres.sql_text import CopiedRows, SqlFilter
from recoup.kernel.errors import EngineError
from recoup.kernel.process import Command, Completed, open_child

_END_SECONDS = 24 * 3600.0  #: after the last byte was sent: indexes and constraints are built then


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlFilled:
    """What a plain dump held: what was left out of it, and its COPY blocks."""

    notes: tuple[str, ...]
    copied: tuple[CopiedRows, ...]


def fill_from_archive(access: ServerAccess, database: str, pieces: Iterable[bytes]) -> list[str]:
    """Restore a custom-format dump with pg_restore. Raise ``EngineError`` with the first thing it complained of."""
    command = access.command(
        "pg_restore", "--exit-on-error", "--no-password", dbname_argument(database), database=database
    )
    said = _feed(command, pieces, "pg_restore")
    return [line for line in said.splitlines() if line.strip()][-20:]


def fill_from_sql(access: ServerAccess, database: str, pieces: Iterable[bytes]) -> SqlFilled:
    """Run a plain dump with psql, statement by statement, after ``SqlFilter`` took out what must not run.

    Raise ``EngineError`` with psql's line number and text at the first error, and ``RefusedError`` for a file that
    would leave the fresh database or start programs.
    """
    programs = access.programs()
    # A program inside the server's container can do no more than the SQL it runs, which is a superuser's. On this
    # machine it could start programs as us: there, text on which psql's and our reading may differ is refused,
    # unless this psql can be locked with \restrict.
    lockable = programs.reads_hostile_text
    sql = SqlFilter(refuse_ambiguous=programs.local and not lockable)
    arguments = ["--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1"]
    if lockable:
        arguments.append(f"--command=\\restrict {secrets.token_hex(16)}")
    command = access.command("psql", *arguments, "--file=-", dbname_argument(database), database=database)
    _feed(command, sql.filtered(pieces), "psql")
    return SqlFilled(notes=tuple(sql.notes), copied=tuple(sql.copied))


def _feed(command: Command, pieces: Iterable[bytes], program: str) -> str:
    """Send ``pieces`` to the program's standard input; return what it said. Raise ``EngineError`` when it fails."""
    with open_child(command, stdin=True, stdout=False) as child:
        broken = False
        try:
            for piece in pieces:
                child.stdin.write(piece)
            child.stdin.close()
        except BrokenPipeError:
            broken = True  # it stopped reading; its exit status and its words say why
        ended = child.wait(_END_SECONDS)
    if ended.exit_status != 0:
        raise _failed(program, ended)
    if broken:
        raise EngineError(f"{program} ended with status 0 before it had read the whole dump")
    return ended.stderr


def _failed(program: str, ended: Completed) -> EngineError:
    said = ended.stderr.strip() or "it said nothing"
    error = re.search(
        r"(?:psql:[^\n]*?:\d+: )?(?:ERROR|FATAL):[^\n]*(?:\n(?:DETAIL|HINT|LINE \d+|Command was):[^\n]*)*", said
    )
    lines = said.splitlines()
    short = error[0] if error is not None else "\n".join(lines[:6])
    hint = None
    if re.search(r'extension "[^"]+" is not available|could not open extension control file', said):
        hint = "Install the package that holds this extension on the server."
    elif re.search(r'role "[^"]+" does not exist', said):
        hint = "Create the role with CREATE ROLE, then run again."
    elif "unsupported version" in said:
        hint = "The dump was made by a newer pg_dump; use the programs of that version."
    elif "unrecognized configuration parameter" in said:
        hint = "The dump was made by a newer PostgreSQL than this server; restore it into a server of that version."
    elif "No space left" in said:
        hint = "Make room on the server's disk: the old and the new database are both there during a restore."
    elif "permission denied" in said or "must be owner" in said or "must be superuser" in said:
        hint = "Restore as a superuser: the dump gives objects to other owners."
    how = f"killed by signal {-ended.exit_status}" if ended.exit_status < 0 else f"status {ended.exit_status}"
    return EngineError(f"{program} stopped at the first error ({how}): {short}", hint=hint)
