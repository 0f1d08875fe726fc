"""Puts a base backup into the data volume of a stopped container, by shell scripts that run in a one-off container.

Scripts, each safe to repeat and safe to kill:

- ``STATUS`` says what is there (nothing, a cluster and whose, an unfinished placement and whose);
- ``STAGE`` unpacks the backup from standard input into a folder *beside* the old data, inside the same volume; for an
  incremental one ``STAGE_PART`` unpacks each backup of its chain, and ``COMBINE`` makes one of them;
- ``SWAP`` moves the old data aside and the new data into place by renames alone, ``pg_control`` last;
- ``PUT_BACK`` undoes a swap: what it set aside takes its place again, and what it had placed is set aside instead;
- ``FORGET`` removes what a swap, or its undoing, has set aside, and what was unpacked for it and not swapped in. It may
  run while the server does.

Until ``SWAP`` begins the old data are untouched. While it runs the volume cannot be started: its control file is
missing, and it is not empty, so no entry point initialises a new cluster in it. A marker says which half of the swap
was reached, so running the same restore again goes on where it stopped. Another one stays afterwards and says which
placement was the last, so that a swap that is done is not done again. A third one says for which restore the copy was
unpacked that lies beside: no other one swaps it in, and ``FORGET`` leaves it alone for any other.

The folders are called ``pgsql_tmp_recoup_*`` because PostgreSQL leaves names that begin with ``pgsql_tmp`` out of base
backups (``src/backend/backup/basebackup.c``, ``sendDir``): what was set aside does not swell the next backup.

Call each as ``sh -c SCRIPT recoup DATA_FOLDER RESTORE_ID`` as root; an empty DATA_FOLDER means ``$PGDATA``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from recoup.kernel.errors import EngineError

INCOMING: Final = "pgsql_tmp_recoup_incoming"
MARKER: Final = "pgsql_tmp_recoup_placing"
PLACED: Final = "pgsql_tmp_recoup_placed"
REPLACED: Final = "pgsql_tmp_recoup_replaced_"
PARTS: Final = "pgsql_tmp_recoup_parts"
STAGED_BY: Final = "pgsql_tmp_recoup_staging"
#: The end of the id under which a placement is undone.
BACK: Final = ".back"

_PROLOGUE: Final = f"""
set -eu
umask 077
data=${{1:-}}
[ -n "$data" ] || data=${{PGDATA:-/var/lib/postgresql/data}}
id=$2
incoming=$data/{INCOMING}
marker=$data/{MARKER}
placed=$data/{PLACED}
parts=$data/{PARTS}
staging=$data/{STAGED_BY}
aside=$data/{REPLACED}$id
fail() {{ echo "$1" >&2; exit 1; }}
unstage() {{ rm -rf "$incoming" "$parts"; rm -f "$staging"; }}
"""

STATUS: Final = (
    _PROLOGUE
    + """
if [ -e "$marker" ]; then echo "placing $(cat "$marker")"; fi
if [ -s "$data/global/pg_control" ]; then
  identifier=$(LC_ALL=C pg_controldata "$data" 2>/dev/null | sed -n 's/^Database system identifier: *//p')
  [ -n "$identifier" ] || identifier=0x$(od -An -v -t x1 -N 8 "$data/global/pg_control" 2>/dev/null | tr -d ' ')
  echo "cluster $identifier $(cat "$data/PG_VERSION" 2>/dev/null || echo '?')"
elif [ -d "$data" ] && [ -n "$(ls -A "$data" | grep -v '^pgsql_tmp_recoup_' | head -n 1)" ]; then
  echo "something $(ls -A "$data" | grep -v '^pgsql_tmp_recoup_' | head -n 5 | tr '\\n' ' ')"
fi
if [ -e "$data/postmaster.pid" ]; then echo "pidfile"; fi
if [ -e "$placed" ]; then echo "placed $(cat "$placed")"; fi
df -Pk "$data" 2>/dev/null | tail -n 1 | sed 's/^/df /'
du -sk "$data" 2>/dev/null | sed 's/^/du /'
echo "folder $data"
"""
)

#: The beginning of every way to stage. The mark is on the disk before there is anything that it speaks of, and goes
#: after it. Whatever stops this before its end, a half-unpacked copy must not fill the disk that the old data need.
_CLAIM: Final = """
[ ! -e "$marker" ] || fail "another placement is unfinished here: $(cat "$marker")"
mkdir -p "$data"
rm -rf "$incoming" "$parts"
trap unstage EXIT
trap 'exit 130' HUP INT TERM
printf '%s\\n' "$id" > "$staging"
chown "$(stat -c %u:%g "$data")" "$staging"
sync
"""

#: What goes on with the parts of a chain.
_CLAIMED: Final = """
[ ! -e "$marker" ] || fail "another placement is unfinished here: $(cat "$marker")"
[ "$(cat "$staging" 2>/dev/null)" = "$id" ] || fail "what is unpacked in $parts is not of $id"
trap unstage EXIT
trap 'exit 130' HUP INT TERM
"""

#: The end of every way to stage: nothing of it can be started, and everything is on the disk.
_STAGED: Final = """
[ -s "$incoming/global/pg_control" ] && [ -s "$incoming/PG_VERSION" ] || fail "the backup has no control file"
mv "$incoming/global/pg_control" "$incoming/global/pg_control.recoup"
owner=$(stat -c %u:%g "$data")
[ "$owner" != 0:0 ] || owner=$(id -u postgres):$(id -g postgres)
chown -R "$owner" "$incoming"
sync
trap - EXIT
echo "staged"
"""

STAGE: Final = (
    _PROLOGUE
    + _CLAIM
    + """
[ "$(cat "$placed" 2>/dev/null)" != "$id" ] || rm -f "$placed"
mkdir -m 700 "$incoming"
tar -x -p -f - -C "$incoming"
"""
    + _STAGED
)

#: One backup of a chain, its number as the third argument; the first is 0. ``COMBINE`` puts them together.
STAGE_PART: Final = (
    _PROLOGUE
    + """
command -v pg_combinebackup > /dev/null || fail "this container has no pg_combinebackup"
if [ "$3" = 0 ]; then
"""
    + _CLAIM
    + """
mkdir -m 700 "$parts"
else
"""
    + _CLAIMED
    + """
fi
mkdir -m 700 "$parts/$3"
tar -x -p -f - -C "$parts/$3"
[ -s "$parts/$3/global/pg_control" ] && [ -s "$parts/$3/backup_manifest" ] || fail "backup $3 of the chain is not whole"
trap - EXIT
echo "staged part $3"
"""
)

#: Puts the parts together, as many as the third argument says: then all is as ``STAGE`` leaves it. Visibility maps
#: that were put together are dropped, for what ``combine.drop_stale_maps`` says.
COMBINE: Final = (
    _PROLOGUE
    + _CLAIMED
    + """
count=$3
rm -rf "$incoming"
set -- --no-sync --output "$incoming"
if pg_combinebackup --help | grep -q -e --link; then set -- "$@" --link; fi
at=0
while [ "$at" -lt "$count" ]; do set -- "$@" "$parts/$at"; at=$((at + 1)); done
pg_combinebackup "$@"
maps=$(cd "$parts/$((count - 1))" && find . -name 'INCREMENTAL.*_vm')
for map in $maps; do rm -f "$incoming/${map%/*}/${map##*/INCREMENTAL.}"; done
rm -rf "$parts"
"""
    + _STAGED
)

#: What begins every change of places: where an earlier call of the same came to, and whether it is done.
_BEGIN: Final = """
phase=none
if [ -e "$marker" ]; then
  read -r phase whose < "$marker"
  [ "$whose" = "$id" ] || fail "another placement is unfinished here: $(cat "$marker")"
elif [ "$(cat "$placed" 2>/dev/null)" = "$id" ]; then
  if [ -d "$aside" ]; then echo "kept $aside"; fi
  echo "placed"
  exit 0
fi
reach() { printf '%s %s\\n' "$1" "$id" > "$marker.new"; sync; mv "$marker.new" "$marker"; sync; phase=$1; }
"""

_CHANGE_PLACES: Final = """
if [ "$phase" = back ]; then
  # What was set aside comes as new data do: the control file under another name until everything is in place.
  back=${aside%.back}
  if [ -d "$back" ]; then mv "$back" "$incoming"; fi
  control=$incoming/global/pg_control
  if [ -e "$control" ]; then mv "$control" "$control.recoup"; fi
  reach aside
fi
if [ "$phase" = aside ]; then
  # Everything that is not ours is the old data. The control file's folder goes first: from here on it cannot start.
  mkdir -p "$aside"
  if [ -e "$data/global" ]; then mv "$data/global" "$aside/"; fi
  for entry in "$data"/* "$data"/.[!.]*; do
    case ${entry##*/} in pgsql_tmp_recoup_*) continue ;; esac
    if [ -e "$entry" ] || [ -L "$entry" ]; then mv "$entry" "$aside/"; fi
  done
  reach place
fi
for entry in "$incoming"/* "$incoming"/.[!.]*; do
  if [ -e "$entry" ] || [ -L "$entry" ]; then mv "$entry" "$data/"; fi
done
if [ -d "$incoming" ]; then rmdir "$incoming"; fi
owner=$(stat -c %u:%g "$data/PG_VERSION" 2>/dev/null || stat -c %u:%g "$data")
chown "$owner" "$data"; chmod 700 "$data"
rmdir "$aside" 2>/dev/null || chown "$owner" "$aside"
if [ -e "$data/global/pg_control.recoup" ]; then sync; mv "$data/global/pg_control.recoup" "$data/global/pg_control"; fi
printf '%s\\n' "$id" > "$placed.new"; chown "$owner" "$placed.new"; sync; mv "$placed.new" "$placed"; sync
rm -f "$staging" "$marker"
sync
if [ -d "$aside" ]; then echo "kept $aside"; fi
echo "placed"
"""

SWAP: Final = (
    _PROLOGUE
    + _BEGIN
    + """
if [ "$phase" = none ]; then
  [ -s "$incoming/global/pg_control.recoup" ] || fail "nothing is staged in $incoming"
  [ ! -s "$staging" ] || [ "$(cat "$staging")" = "$id" ] ||
    fail "what is staged in $incoming is of $(cat "$staging"), not of $id: another restore was begun since"
  reach aside
fi
"""
    + _CHANGE_PLACES
)

#: ``RESTORE_ID`` is that of the placement to undo. Old data that could not be started before are put back as they were.
PUT_BACK: Final = (
    _PROLOGUE
    + """
back=$aside id=$id.back aside=$aside.back
"""
    + _BEGIN
    + """
if [ "$phase" = none ]; then
  [ "$(cat "$placed" 2>/dev/null)" = "$2" ] || fail "the data here are not those that $2 put in place"
  if [ ! -d "$back" ]; then echo "nothing"; exit 0; fi
  unstage
  reach back
fi
"""
    + _CHANGE_PLACES
)

FORGET: Final = (
    _PROLOGUE
    + """
[ ! -e "$marker" ] || fail "a placement is unfinished here: $(cat "$marker")"
for old in "$aside" "$aside.back"; do
  if [ -d "$old" ]; then rm -rf "$old"; echo "removed $old"; fi
done
# A mark without a word was cut off before there was anything beside it. One that ends as the id does is of the same
# run, which chose another copy since.
case $(cat "$staging" 2>/dev/null || echo none) in
  "$id" | *."${id##*.}" | "")
    for old in "$incoming" "$parts"; do
      if [ -d "$old" ]; then rm -rf "$old"; echo "removed $old"; fi
    done
    rm -f "$staging"
    ;;
esac
sync
"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeStatus:
    """What ``STATUS`` found in a data volume."""

    folder: str
    cluster: tuple[str, str] | None  #: (system identifier, major version)
    something: str | None  #: first names of what is there and is not a cluster
    placing: tuple[str, str] | None  #: (phase, restore id) of an unfinished placement
    free_bytes: int
    used_bytes: int
    placed: str | None = None  #: the restore id of the last placement that was finished


def parse_status(output: bytes) -> VolumeStatus:
    """Given what ``STATUS`` printed, return it. Raise ``EngineError`` when it says nothing useful."""
    said: dict[str, str] = {}
    for line in output.decode(errors="replace").splitlines():
        word, _, rest = line.partition(" ")
        said[word] = rest.strip()
    if "folder" not in said:
        raise EngineError(f"could not look into the data volume: {output[-500:].decode(errors='replace')}")
    placing = said.get("placing", "").split()
    disk, used = said.get("df", "").split(), said.get("du", "").split()
    return VolumeStatus(
        folder=said["folder"],
        cluster=_cluster(said["cluster"]) if "cluster" in said else None,
        something=said.get("something"),
        placing=(placing[0], placing[1]) if len(placing) == 2 else None,
        free_bytes=int(disk[3]) * 1024 if len(disk) > 3 and disk[3].isdigit() else 0,
        used_bytes=int(used[0]) * 1024 if used and used[0].isdigit() else 0,
        placed=said.get("placed"),
    )


def _cluster(text: str) -> tuple[str, str]:
    """(system identifier, major version); ``?`` for what cannot be read. A cluster is there in any case.

    Without ``pg_controldata`` the identifier comes as the first eight bytes of the control file, in the machine's
    byte order (``src/include/catalog/pg_control.h``).
    """
    identifier, _, version = text.partition(" ")
    if identifier.startswith("0x"):
        try:
            identifier = str(int.from_bytes(bytes.fromhex(identifier[2:]), "little") or "?")
        except ValueError:
            identifier = "?"
    return identifier if identifier.isdigit() else "?", version or "?"
