"""The folder restore as a shell script, for a data folder that only a container can see.

It runs in a one-off container of the Redis image, with the data volume mounted and the RDB on its standard input. It
does what ``restore_folder`` does, in the same order and with the same promise, with what the smallest images have
(POSIX sh and busybox). All that varies is passed as arguments; nothing is put into the text of the script, and no
secret is needed.
"""

from __future__ import annotations

from datetime import datetime

from recoup.engines.redis.restore_folder import FolderLayout
from recoup.kernel.ids import stamp
from recoup.kernel.process import Completed

#: How the script ends, besides 0 and what a failing program gives.
EXIT_DAMAGED = 3  #: standard input was not the whole RDB; nothing was changed
EXIT_REFUSED = 5  #: there is data, and it was not told to replace it; nothing was changed

_KEPT = "recoup-kept:"

SCRIPT = r"""set -eu
folder=$1 mode=$2 dbfilename=$3 appendfilename=$4 appenddirname=$5 stamp=$6 expected=$7 force=$8
umask 077
cd "$folder"

holds_data() {
    if [ -d "$1" ]; then [ -n "$(ls -A "$1")" ]; else [ -e "$1" ]; fi
}
give() { # to the owner of the data folder
    if [ "$(id -u)" = 0 ]; then chown "$(stat -c %u:%g .)" "$@"; fi
}
second_name() { # a copy where the file system has no hard links
    ln "$1" "$2" 2>/dev/null || cp -p "$1" "$2"
}

present=
for name in "$dbfilename" "$appendfilename" "$appenddirname"; do
    if holds_data "$name"; then present="$present $name"; fi
done
if [ -n "$present" ] && [ "$force" != force ]; then
    echo "the data folder holds data already:$present" >&2
    exit 5
fi

# Stage: the whole copy, beside the data.
rm -rf .recoup-restore-*
staging=.recoup-restore-$stamp
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

# Keep: a second name for every old file.
if [ -n "$present" ]; then
    kept=recoup-replaced-$stamp
    number=1
    while [ -e "$kept" ]; do
        number=$((number + 1))
        kept=recoup-replaced-$stamp-$number
    done
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
    sync
    echo "recoup-kept:$kept"
fi

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
sync
"""


def restore_argv(
    folder: str, layout: FolderLayout, *, expected_bytes: int, moment: datetime, force: bool = False
) -> list[str]:
    """The program call that restores standard input, an RDB of ``expected_bytes``, into ``folder`` of a stopped Redis.

    Feed it from ``seal.sealed_pieces`` and end it (or close its input) when that raises: a copy that does not reach
    its last byte changes nothing. ``moment`` names the folder in which the old data are kept.
    """
    mode = "multi-part" if layout.multi_part else "log" if layout.appendonly else "rdb"
    names = (layout.dbfilename, layout.appendfilename, layout.appenddirname)
    how = "force" if force else "careful"
    return ["sh", "-c", SCRIPT, "recoup-restore", folder, mode, *names, stamp(moment), str(expected_bytes), how]


def kept_folder(completed: Completed) -> str | None:
    """Given the script's successful end, return the name of the folder that keeps the old data, or None."""
    for line in completed.stdout.decode(errors="replace").splitlines():
        if line.startswith(_KEPT):
            return line.removeprefix(_KEPT)
    return None
