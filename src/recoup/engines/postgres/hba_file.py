"""One line of a server's ``pg_hba.conf``: added inside the container of the server, and removed again.

The file is replaced by one rename, with its owner and mode, and only by a file that the server can read. Nothing else
in it is touched. Where it cannot be replaced (it is mounted as a single file, or read-only) nothing is changed.
Format: PostgreSQL documentation, "The pg_hba.conf File". The first line that fits decides, so ours goes first; the
database ``replication`` is meant by no other line.
"""

from __future__ import annotations

import re
from typing import Final

from recoup.engines.postgres.access import ProgramAccess, open_maintenance
from recoup.engines.postgres.connection_errors import ReplicationNotAllowedError
from recoup.engines.postgres.wire import connect
from recoup.kernel import clock
from recoup.kernel.errors import EngineError
from recoup.kernel.process import run
from recoup.kernel.secret import Secret

#: Every line that Recoup adds ends so.
MARK: Final = "# added by recoup check --prepare"
_FILE_SECONDS: Final = 60.0
_RELOAD_SECONDS: Final = 10.0  #: the server reads the file when it gets to it
_HEAD: Final = r"""set -eu
file=$(readlink -f "$1") line=$2
new=$file.recoup
trap 'rm -f "$new"' EXIT
"""
_ADD: Final = (
    _HEAD
    + r"""if grep -qxF -e "$line" "$file"; then exit 0; fi
cp -p "$file" "$new"
{ printf '%s\n' "$line"; cat "$file"; } > "$new"
sync "$new"
mv -f "$new" "$file"
"""
)
_REMOVE: Final = (
    _HEAD
    + r"""grep -qxF -e "$line" "$file" || exit 0
cp -p "$file" "$new"
grep -vxF -e "$line" "$file" > "$new" || [ $? = 1 ]
sync "$new"
mv -f "$new" "$file"
"""
)


def neighbour_line(role: str) -> str | None:
    """The line that lets ``role`` replicate from the networks of the server's container, by password.

    The networks and not one address: Docker gives addresses anew whenever a container or a network is made. None for
    a role whose name cannot stand in one line.
    """
    if not role or re.search(r"[\r\n\0]", role):
        return None
    quoted = '"' + role.replace('"', '""') + '"'
    return f"host  replication  {quoted}  samenet  scram-sha-256  {MARK}"


def add_line(access: ProgramAccess, url: Secret, line: str) -> None:
    """Add ``line`` unless it is there, have it read, and wait until ``url`` may replicate.

    Raise ``EngineError`` when that cannot be; the file is then as it was.
    """
    _refuse_broken(access)
    _change(access, _ADD, line)
    try:
        _refuse_broken(access)
        _reload(access)
        _wait_until_allowed(url)
    except EngineError:
        remove_line(access, line)
        raise


def remove_line(access: ProgramAccess, line: str) -> None:
    """Remove ``line`` if it is there, and have the file read. Raise ``EngineError``."""
    _change(access, _REMOVE, line)
    _reload(access)


def _change(access: ProgramAccess, script: str, line: str) -> None:
    with open_maintenance(access) as session:
        ((file,),) = session.query("SELECT current_setting('hba_file')")
    assert file is not None
    try:
        run(access.beside("sh", "-c", script, "recoup-hba", file, line, timeout_seconds=_FILE_SECONDS))
    except EngineError as failure:
        raise EngineError(
            f"cannot change {file} in {access.place}: {failure.message}",
            hint=f'Where it is a mounted file, change it there: the line is "{line}"; then SELECT pg_reload_conf();',
        ) from failure


def _refuse_broken(access: ProgramAccess) -> None:
    """A file with an error in it is not read by the server, and a server that starts with it ends at once."""
    with open_maintenance(access) as session:
        wrong = session.query(
            "SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL ORDER BY line_number"
        )
    if wrong:
        raise EngineError(
            f"line {wrong[0][0]} of pg_hba.conf in {access.place} is wrong: {wrong[0][1]}",
            hint="Correct it first: as it is, the server would not start again.",
        )


def _reload(access: ProgramAccess) -> None:
    with open_maintenance(access) as session:
        session.query("SELECT pg_reload_conf()")


def _wait_until_allowed(url: Secret) -> None:
    until = clock.monotonic() + _RELOAD_SECONDS
    while True:
        try:
            with connect(url, application_name="recoup check"):
                return
        except ReplicationNotAllowedError as refused:
            # Another refusal (a right of the role, too few senders) is not about the file.
            if "pg_hba.conf" not in refused.message:
                return
            if clock.monotonic() > until:
                raise
        clock.pause(0.1)
