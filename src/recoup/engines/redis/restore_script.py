"""The folder restore as a shell script, for a data folder that only a container can see.

It runs in a one-off container of the Redis image, with the data volume mounted and the RDB on its standard input. It
does what ``restore_folder`` does, in the same order and with the same promise, with what the smallest images have
(POSIX sh and busybox). All that varies is passed as arguments; nothing is put into the text of the script, and no
secret is needed.

Each restore has an id, under which the old data are kept (``recoup-replaced-ID``). A marker in the folder says that
they are all kept and the switch has begun, another one which restore was the last to be finished: so the same restore,
given again after a kill, keeps the old data once, and changes nothing when it is done. ``PUT_BACK`` undoes a restore by
renames alone, and ``FORGET`` removes what was kept; both may be repeated as well.
"""

from __future__ import annotations

from recoup.engines.redis.restore_folder import FolderLayout
from recoup.kernel.process import Completed

#: How the script ends, besides 0 and what a failing program gives.
EXIT_DAMAGED = 3  #: standard input was not the whole RDB; nothing was changed
EXIT_REFUSED = 5  #: there is data, and it was not told to replace it; nothing was changed

#: Names in the data folder, besides that of what is kept.
MARKER = ".recoup-placing"
PLACED = ".recoup-placed"
#: The end of the id under which a restore is undone.
BACK = ".back"
_KEPT = "recoup-kept:"

_PROLOGUE = rf"""set -eu
umask 077
fail() {{ echo "$1" >&2; exit 1; }}
said() {{ cat "$1" 2>/dev/null || :; }}
give() {{ # to the owner of the data folder
    if [ "$(id -u)" = 0 ]; then chown "$(stat -c %u:%g .)" "$@"; fi
}}
mark() {{ # name, words; on the disk when it returns
    echo "$2" >"$1.new"
    give "$1.new"
    sync
    mv "$1.new" "$1"
    sync
}}
marker={MARKER} placed={PLACED}
"""

SCRIPT = (
    _PROLOGUE
    + r"""
folder=$1 mode=$2 dbfilename=$3 appendfilename=$4 appenddirname=$5 id=$6 expected=$7 force=$8
cd "$folder"
kept=recoup-replaced-$id

holds_data() {
    if [ -d "$1" ]; then [ -n "$(ls -A "$1")" ]; else [ -e "$1" ]; fi
}
second_name() { # a copy where the file system has no hard links
    ln "$1" "$2" 2>/dev/null || cp -p "$1" "$2"
}

if [ "$(said "$placed")" = "$id" ]; then
    cat >/dev/null
    rm -f "$marker"
    if [ -d "$kept" ]; then echo "recoup-kept:$kept"; fi
    exit 0
fi
switching=
[ "$(said "$marker")" != "$id" ] || switching=yes
present=
for name in "$dbfilename" "$appendfilename" "$appenddirname"; do
    if holds_data "$name"; then present="$present $name"; fi
done
if [ -n "$present" ] && [ "$force" != force ] && [ -z "$switching" ]; then
    echo "the data folder holds data already:$present" >&2
    exit 5
fi

# Stage: the whole copy, beside the data.
rm -rf .recoup-restore-*
staging=.recoup-restore-$id
mkdir "$staging"
trap 'rm -rf "$staging"' EXIT
trap 'exit 130' HUP INT TERM
cat >"$staging/copy.rdb"
size=$(wc -c <"$staging/copy.rdb")
if [ "$size" -ne "$expected" ] || [ "$(head -c 5 "$staging/copy.rdb")" != REDIS ]; then
    echo "the copy came with $size bytes instead of $expected" >&2
    exit 3
fi
give "$staging/copy.rdb"
sync

# Keep: a second name for every old file. What a killed run had kept before it switched is kept anew.
if [ -z "$switching" ]; then
    rm -rf "$kept"
    if [ -n "$present" ]; then
        mkdir "$kept"
        give "$kept"
        for name in $present; do
            if [ -d "$name" ]; then
                mkdir "$kept/$name"
                give "$kept/$name"
                for file in "$name"/*; do
                    if [ -e "$file" ]; then second_name "$file" "$kept/$file"; fi
                done
            else
                second_name "$name" "$kept/$name"
            fi
        done
    fi
    mark "$marker" "$id"
fi
if [ -d "$kept" ]; then echo "recoup-kept:$kept"; fi

# Switch: one rename.
case $mode in
rdb)
    new=$dbfilename
    mv -f "$staging/copy.rdb" "$new"
    ;;
log)
    new=$appendfilename
    mv -f "$staging/copy.rdb" "$new"
    ;;
multi-part)
    new=$appenddirname
    manifest=$appendfilename.manifest
    sequence=1
    for file in "$appenddirname"/*; do
        number=${file#"$appenddirname/$appendfilename."}
        number=${number%%.*}
        case $number in '' | *[!0-9]*) continue ;; esac
        if [ "$number" -ge "$sequence" ]; then sequence=$((number + 1)); fi
    done
    base=$appendfilename.$sequence.base.rdb
    echo "file $base seq $sequence type b" >"$staging/$manifest"
    give "$staging/$manifest"
    if [ -d "$appenddirname" ]; then
        mv -f "$staging/copy.rdb" "$appenddirname/$base"
        sync
        mv -f "$staging/$manifest" "$appenddirname/$manifest"
    else
        mkdir "$staging/log"
        give "$staging/log"
        mv -f "$staging/copy.rdb" "$staging/log/$base"
        mv -f "$staging/$manifest" "$staging/log/$manifest"
        sync
        mv "$staging/log" "$appenddirname"
    fi
    ;;
esac
sync

# Clean: the old names, which the server does not read any more.
if [ "$mode" = multi-part ]; then
    for file in "$appenddirname"/*; do
        case $file in "$appenddirname/$base" | "$appenddirname/$manifest") ;; *) rm -f "$file" ;; esac
    done
fi
for name in $present; do
    if [ "$name" != "$new" ]; then rm -rf "$name"; fi
done
rm -rf "$staging"
mark "$placed" "$id"
rm -f "$marker"
sync
"""
)

#: ``sh -c PUT_BACK recoup FOLDER ID NAME...``: what the restore ID replaced takes its place again. NAMEs are all that a
#: Redis keeps its data under.
PUT_BACK = (
    _PROLOGUE
    + r"""
cd "$1"
back=recoup-replaced-$2 aside=recoup-replaced-$2.back id=$2.back
shift 2
phase= whose=
if [ -e "$marker" ]; then read -r whose phase <"$marker"; fi
if [ "$whose" != "$id" ]; then
    if [ "$(said "$placed")" = "$id" ]; then echo "recoup-kept:$aside"; exit 0; fi
    # One that had begun to switch has kept everything before, so it is undone as one that is done.
    [ "$(said "$placed")" = "${id%.back}" ] || [ "$whose" = "${id%.back}" ] ||
        fail "the data here are not those that ${id%.back} put in place"
    if [ ! -d "$back" ]; then exit 0; fi # it had found nothing
    phase=aside
    mark "$marker" "$id aside"
fi
if [ "$phase" = aside ]; then
    mkdir -p "$aside"
    for name in "$@"; do
        if [ -e "$name" ]; then mv "$name" "$aside/"; fi
    done
    give "$aside"
    mark "$marker" "$id place"
fi
for name in "$@"; do
    if [ -e "$back/$name" ]; then mv "$back/$name" .; fi
done
if [ -d "$back" ]; then rmdir "$back"; fi
mark "$placed" "$id"
rm -f "$marker"
sync
echo "recoup-kept:$aside"
"""
)

#: ``sh -c FORGET recoup FOLDER ID``: removes what the restore ID, or its undoing, has set aside, and what a kill left
#: of the copy that it, or the same run before it chose another one, was bringing: the end of the id is that of the run.
FORGET = (
    _PROLOGUE
    + r"""
cd "$1"
whose=
if [ -e "$marker" ]; then read -r whose phase <"$marker"; fi
[ -z "$whose" ] || [ "$whose" = "$(said "$placed")" ] || fail "the restore $whose is unfinished here"
for old in "recoup-replaced-$2" "recoup-replaced-$2.back" ".recoup-restore-"*".${2##*.}"; do
    if [ -d "$old" ]; then
        rm -rf "$old"
        echo "removed $old"
    fi
done
sync
"""
)


def restore_argv(
    folder: str, layout: FolderLayout, *, expected_bytes: int, restore_id: str, force: bool = False
) -> list[str]:
    """The program call that restores standard input, an RDB of ``expected_bytes``, into ``folder`` of a stopped Redis.

    Feed it from ``seal.sealed_pieces`` and end it (or close its input) when that raises: a copy that does not reach
    its last byte changes nothing. ``restore_id`` names the folder in which the old data are kept; no other restore may
    ever have had it.
    """
    mode = "multi-part" if layout.multi_part else "log" if layout.appendonly else "rdb"
    names = (layout.dbfilename, layout.appendfilename, layout.appenddirname)
    how = "force" if force else "careful"
    return ["sh", "-c", SCRIPT, "recoup-restore", folder, mode, *names, restore_id, str(expected_bytes), how]


def kept_folder(completed: Completed) -> str | None:
    """Given a script's successful end, return the name of the folder that keeps what it replaced, or None."""
    for line in completed.stdout.decode(errors="replace").splitlines():
        if line.startswith(_KEPT):
            return line.removeprefix(_KEPT)
    return None
