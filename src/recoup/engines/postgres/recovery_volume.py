"""Recovering a base backup beside the old data of a volume, in one-off containers of the service's own image.

``volume_script.STAGE`` has unpacked the base backup into ``INCOMING``. ``PREPARE`` (as root) makes it a folder that
recovers; ``recovery_script.RECOVER`` (as the owner that ``PREPARE`` names) recovers it; ``SEAL`` (as root) looks at the
result and gives the control file the name under which ``volume_script.SWAP`` expects it. The old data stay untouched.
``DISCARD`` removes all of it when any of this failed.

Call them as ``sh -c SCRIPT recoup DATA_FOLDER``; an empty DATA_FOLDER means ``$PGDATA``. Each may be repeated.
"""

from __future__ import annotations

from typing import Final

from recoup.engines.postgres.recovery_script import RECOVER, SPOOL
from recoup.engines.postgres.volume_script import INCOMING, PARTS, STAGED_BY

_PROLOGUE: Final = f"""
set -eu
umask 077
data=${{1:-}}
[ -n "$data" ] || data=${{PGDATA:-/var/lib/postgresql/data}}
incoming=$data/{INCOMING}
fail() {{ echo "$1" >&2; exit 1; }}
"""

PREPARE: Final = (
    _PROLOGUE
    + f"""
rm -rf "$incoming/standby.signal" "$incoming/{SPOOL}"
owner=$(stat -c %u:%g "$incoming/PG_VERSION")
: > "$incoming/recovery.signal"
chown "$owner" "$incoming/recovery.signal"
[ ! -e "$incoming/global/pg_control.recoup" ] ||
  mv "$incoming/global/pg_control.recoup" "$incoming/global/pg_control"
[ -s "$incoming/global/pg_control" ] || fail "nothing is staged in $incoming"
echo "owner $owner"
echo "incoming $incoming"
"""
)

#: As the owner: ``sh -c RECOVER_STAGED recoup INCOMING ROLES NAME=VALUE...``.
RECOVER_STAGED: Final = (
    """
incoming=$1 roles=$2
shift 2
set -- "$incoming" "$(command -v postgres)" "$(command -v psql)" "$roles" "$@"
"""
    + RECOVER
)

SEAL: Final = (
    _PROLOGUE
    + f"""
for left in recovery.signal standby.signal postmaster.pid {SPOOL}; do
  [ ! -e "$incoming/$left" ] || fail "the recovery left $left in $incoming"
done
state=$(LC_ALL=C pg_controldata "$incoming" 2>/dev/null | sed -n 's/^Database cluster state: *//p')
case $state in "shut down"|"") ;; *) fail "the recovered cluster is '$state'" ;; esac
mv "$incoming/global/pg_control" "$incoming/global/pg_control.recoup"
sync
echo sealed
"""
)

DISCARD: Final = (
    _PROLOGUE
    + f"""
rm -rf "$incoming" "$data/{PARTS}"
rm -f "$data/{STAGED_BY}"
"""
)
