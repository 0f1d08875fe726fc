"""Recovers a restored data folder to a target, by one shell script: on this machine, or in a one-off container.

The script starts the server on the folder with nothing but a local socket inside it, no archiving, no preloaded
libraries and a configuration file of its own; all that recovery needs is on the command line, so nothing of it is left
in the folder's files. WAL comes as a tar stream on standard input into a spool inside the folder (``pgsql_tmp_*`` is
left out of base backups). The server's ``restore_command`` takes each file from there; what is on the list and not
there yet it asks for on the script's standard output, and waits. When standard input ends early (the other side is
gone) or the spool cannot be written, the server is stopped at once; ``restore_command`` then ends with a status above
125, on which PostgreSQL gives up instead of taking it for the end of the WAL (``RestoreArchivedFile``,
src/backend/access/transam/xlogarchive.c).

Until the server has removed it, ``recovery.signal`` keeps the folder from being started by anyone else: without a
``restore_command`` PostgreSQL refuses.

Call it as ``sh -c SCRIPT recoup DATA_FOLDER POSTGRES PSQL ROLES NAME=VALUE...`` as the owner of the data folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.recovery_target import Target, target_settings

SPOOL: Final = "pgsql_tmp_recoup_recovery"

#: What a server in recovery must have at least as much of as its origin, and what has to agree with it.
_FROM_ORIGIN: Final = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "wal_level",
)

RECOVER: Final = (
    """
set -u
umask 077
data=$1 postgres=$2 psql=$3 roles=$4
shift 4
spool=@SPOOL@
exec 3>&1 5<&0
say() { printf '%s\\n' "$*" >&3; }
nap() { sleep 0.05 2>/dev/null || sleep 1; }
cd "$data" || { say "lost: cannot enter $data as user $(id -u)"; exit 1; }
rm -rf "$spool" && mkdir "$spool" "$spool/in" "$spool/run" && echo 'local all all trust' > "$spool/hba" ||
  { say "lost: cannot write into $data as user $(id -u)"; exit 1; }
: > "$spool/ident"
: > "$spool/conf"
cat > "$spool/get" <<'GET'
spool=@SPOOL@
[ ! -e $spool/failed ] || exit 250
grep -qxF "$1" $spool/in/list || exit 1
if [ ! -e "$spool/in/$1.ready" ]; then
  echo "want $1" >&3
  while [ ! -e "$spool/in/$1.ready" ]; do
    [ ! -e $spool/failed ] && [ ! -e $spool/input.ended ] || exit 250
    sleep 0.02 2>/dev/null || sleep 1
  done
fi
mv "$spool/in/$1" "$2" || exit 250
rm -f "$spool/in/$1.ready"
echo "took $1" >&3
GET

server() {
  [ ! -s "$spool/server.pid" ] || kill -"$1" "$(cat "$spool/server.pid")" 2>/dev/null
}
await_end() {
  while [ ! -e "$spool/server.ended" ]; do nap; done
}
give_up() {
  : > "$spool/failed"
  server QUIT
  await_end
  rm -rf "$spool/in"
  exit "$1"
}
fourth() { echo "${4:-}"; }
tell_log() {
  say "free $(fourth $(df -Pk . 2>/dev/null | tail -n 1))"
  tail -n 60 "$spool/log" 2>/dev/null | sed 's/^/log /' >&3
}

( tar -x -f - -C "$spool/in" <&5 >/dev/null 3>&- 2> "$spool/input.said"; echo $? > "$spool/input.ended" ) &
while [ ! -e "$spool/in/list.ready" ]; do
  [ ! -e "$spool/input.ended" ] || { say "lost $(tail -c 300 "$spool/input.said")"; exit 4; }
  nap
done
for setting in "$@"; do set -- "$@" -c "$setting"; shift; done
rm -f "$spool/server.ended"
( sh -c 'echo $$ > "$1"; shift; exec "$@"' sh "$spool/server.pid" "$postgres" -D "$data" \\
    -c "config_file=$data/$spool/conf" -c "hba_file=$data/$spool/hba" -c "ident_file=$data/$spool/ident" \\
    -c "unix_socket_directories=$spool/run" "$@" </dev/null 5<&- >> "$spool/log" 2>&1
  echo $? > "$spool/server.ended" ) &
trap 'give_up 130' HUP INT TERM
while :; do
  if [ -e "$spool/server.ended" ]; then
    tell_log
    say "ended $(cat "$spool/server.ended")"
    exit 3
  fi
  if [ -e "$spool/input.ended" ]; then
    tell_log
    say "lost $(tail -c 300 "$spool/input.said")"
    give_up 4
  fi
  case $(sed -n 8p postmaster.pid 2>/dev/null) in ready*) break ;; esac
  nap
done
question="SELECT 'reached ' || concat_ws(' ', pg_last_wal_replay_lsn(), extract(epoch FROM
  pg_last_xact_replay_timestamp()), 'on', substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), pg_is_in_recovery())"
answer=
while IFS= read -r role; do
  for database in postgres template1; do
    [ -n "$answer" ] || answer=$(PGCONNECT_TIMEOUT=30 "$psql" -X -A -t -q -h "/proc/self/cwd/$spool/run" -p 5432 \\
      -U "$role" -d "$database" -c "$question" </dev/null 2>/dev/null)
  done
done <<ROLES
$roles
ROLES
[ -z "$answer" ] || say "$answer"
server INT
await_end
tell_log
if [ "$(cat "$spool/server.ended")" != 0 ]; then
  say "ended $(cat "$spool/server.ended")"
  exit 3
fi
[ ! -e recovery.signal ] || { say "ended with recovery.signal"; exit 3; }
say recovered
exec 5<&-
while [ ! -e "$spool/input.ended" ]; do nap; done
rm -rf "$spool"
sync
say clean
"""
).replace("@SPOOL@", SPOOL)

_FULL_KIB: Final = 1024
_KILLED: Final = f"ended {128 + 9}"
_STOPPED = re.compile(r"recovery stopping .*")
_REDO_DONE = re.compile(r"redo done at ([0-9A-F]+/[0-9A-F]+)")
_LAST = re.compile(r"last completed transaction was at log time (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?)\+00")
_NEW_TIMELINE = re.compile(r"selected new timeline ID: (\d+)")
_NOT_REACHED = "recovery ended before configured recovery target was reached"
_NOT_CONSISTENT = "requested recovery stop point is before consistent recovery point"


def recovery_settings(
    target: Target, timeline: int, facts: Mapping[str, Any], *, look_ahead: bool = True
) -> tuple[str, ...]:
    """The settings of the start that recovers, as ``name=value``; ``facts`` are those of the base backup.

    With ``look_ahead`` the server may read WAL before it replays it, which it does from PostgreSQL 15 on.

    Those that a file of the folder may hold (``postgresql.auto.conf``) are given as well, so that it has no say.
    """
    origin = facts.get("settings", {})
    settings = {
        "restore_command": f'sh {SPOOL}/get %f "%p"',
        "recovery_target_timeline": str(timeline),
        **target_settings(target),
        "recovery_target_action": "promote",
        "hot_standby": "off",
        "archive_mode": "off",
        "archive_cleanup_command": "",
        "recovery_end_command": "",
        "recovery_min_apply_delay": "0",
        "primary_conninfo": "",
        "primary_slot_name": "",
        "synchronous_standby_names": "",
        "listen_addresses": "",
        "port": "5432",
        "ssl": "off",
        "shared_preload_libraries": "",
        "session_preload_libraries": "",
        "local_preload_libraries": "",
        # Between its promotion and its end, no subscription of the copy may fetch anything.
        "max_logical_replication_workers": "0",
        "autovacuum": "off",
        "restart_after_crash": "off",
        "recovery_init_sync_method": "syncfs",
        "logging_collector": "off",
        "log_destination": "stderr",
        "log_min_messages": "log",
        "log_line_prefix": "",
        "log_timezone": "UTC",
        "log_statement": "none",
        "lc_messages": "C",
        "event_source": "recoup",
    }
    if not look_ahead and int(facts["major"]) >= 15:
        settings["recovery_prefetch"] = "off"
    settings |= {name: str(origin[name]) for name in _FROM_ORIGIN if origin.get(name)}
    return tuple(f"{name}={value}" for name, value in settings.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """Where a recovery really stopped, as the server told it."""

    lsn: Lsn | None  #: the end of the last record that was replayed
    last_commit: datetime | None  #: of the last transaction that was replayed; None when there was none
    timeline: int | None  #: the new one
    stopped: str | None  #: the server's own words; None when the WAL ended
    asked: bool  #: by SQL, after the end; otherwise from the log alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the script said, line by line."""

    lines: tuple[str, ...]

    @property
    def log(self) -> tuple[str, ...]:
        """The end of the server's log."""
        return tuple(line[4:] for line in self.lines if line.startswith("log "))

    @property
    def finished(self) -> bool:
        """Whether the server recovered, stopped cleanly, and everything of the recovery was removed."""
        return "recovered" in self.lines and self.lines[-1:] == ("clean",)

    @property
    def target_not_reached(self) -> bool:
        """Whether the WAL ended before the target."""
        return any(_NOT_REACHED in line for line in self.log)

    @property
    def target_too_early(self) -> bool:
        """Whether the target came before the base backup was consistent."""
        return any(_NOT_CONSISTENT in line for line in self.log)

    @property
    def fault(self) -> str:
        """The server's last severe words, or the end of its log."""
        severe = [line for line in self.log if line.startswith(("FATAL:", "PANIC:", "ERROR:"))]
        lost = [line[5:].strip() for line in self.lines if line.startswith(("lost ", "lost:"))]
        free = [line[5:] for line in self.lines if line.startswith("free ")]
        if free and free[-1].isdigit() and int(free[-1]) < _FULL_KIB:
            lost.append("No space left on its disk")  # where its log is as well
        if _KILLED in self.lines:
            lost.append("the server was terminated by signal 9")  # it could not say so itself
        return "; ".join([*lost, *(severe[-2:] or self.log[-3:])]) or "it said nothing"

    def reached(self) -> Reached:
        """Where it stopped."""
        log = "\n".join(self.log)
        asked = next((line.split() for line in self.lines if line.startswith("reached ")), None)
        stopped, redo, last, new = (one.search(log) for one in (_STOPPED, _REDO_DONE, _LAST, _NEW_TIMELINE))
        timeline = int(new[1]) if new else None
        if asked is None:
            return Reached(
                lsn=Lsn.parse(redo[1]) if redo else None,
                last_commit=datetime.fromisoformat(last[1]).replace(tzinfo=UTC) if last else None,
                timeline=timeline,
                stopped=stopped[0] if stopped else None,
                asked=False,
            )
        middle = asked.index("on")
        return Reached(
            lsn=Lsn.parse(asked[1]) if middle > 1 and "/" in asked[1] else None,
            last_commit=_epoch(asked[2]) if middle > 2 else None,
            timeline=int(asked[middle + 1], 16),
            stopped=stopped[0] if stopped else None,
            asked=True,
        )


def _epoch(text: str) -> datetime:
    seconds, _, fraction = text.partition(".")
    return datetime.fromtimestamp(int(seconds), UTC).replace(microsecond=int(fraction.ljust(6, "0")[:6]))


def parse_said(lines: Iterable[str]) -> Said:
    """What the script said, without its requests."""
    return Said(lines=tuple(line for line in lines if not line.startswith(("want ", "took "))))
