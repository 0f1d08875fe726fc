#!/bin/sh
# Restores any artefact of this repository with stock tools only: sh, openssl, zstd (or gunzip), tar, awk, od.
# Recoup is not needed. Read RESTORE.md beside this file.
#
#   ./restore.sh --key-file FILE list
#   ./restore.sh --key-file FILE check   ID
#   ./restore.sh --key-file FILE restore ID FOLDER     (FOLDER must be empty or absent)
#   ./restore.sh --key-file FILE stream  ID STREAM     (one stream, plain, to standard output)
#   ./restore.sh --key-file FILE wal     SERVICE FOLDER [SYSTEM]   (all archived WAL, for restore_command)
#
# Order for every object: the manifest is authenticated, then the object's digest must match, then it is decrypted.
set -eu
umask 077
LC_ALL=C
export LC_ALL

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
key_file=${RECOUP_KEY_FILE:-}

die() { printf 'restore.sh: %s\n' "$1" >&2; exit "${2:-1}"; }
usage() { sed -n '5,9s/^# *//p' "$0" >&2; exit 2; }
need() { command -v "$1" > /dev/null 2>&1 || die "this needs the program '$1': install it" 2; }

while [ $# -gt 0 ]; do
  case $1 in
    --key-file) [ $# -ge 2 ] || usage; key_file=$2; shift 2 ;;
    --repository) [ $# -ge 2 ] || usage; here=$2; shift 2 ;;
    -*) usage ;;
    *) break ;;
  esac
done
[ $# -ge 1 ] || usage
verb=$1; shift
for program in openssl awk od sed tar; do need "$program"; done

work=$(mktemp -d)
parts=
trap 'rm -rf "$work" ${parts:+"$parts"}' EXIT
trap 'exit 130' INT TERM

# --- the key -------------------------------------------------------------------------------------------------------
[ -n "$key_file" ] || die "say where the key is: --key-file FILE" 12
[ -r "$key_file" ] || die "cannot read the key file $key_file" 12
# The first line is the key. A random key (64 hexadecimal digits) needs 10000 iterations, any passphrase 600000.
if head -n 1 "$key_file" | grep -Eq '^[0-9a-f]{64}$'; then iterations=10000; else iterations=600000; fi

derived=$(openssl enc -aes-256-cbc -pbkdf2 -md sha256 -iter "$iterations" -S 7265636f75704d31 -P -pass "file:$key_file")
mac_key=$(printf '%s\n' "$derived" | sed -n 's/^key *= *//p' | tr 'A-F' 'a-f')
key_id=$(printf '%s\n' "$derived" | sed -n 's/^iv *= *//p' | tr 'A-F' 'a-f')

# HMAC-SHA256 by its definition (RFC 2104), so that the key never appears among a program's arguments.
pad() { # $1: the byte to combine with; the key block as octal escapes for printf
  printf '%s\n' "$mac_key" | awk -v with="$1" '
    function hex(c) { return index("0123456789abcdef", c) - 1 }
    function xor(a, b,   r, p) { r = 0; for (p = 1; p < 256; p *= 2) { if (a % 2 != b % 2) r += p; a = int(a / 2); b = int(b / 2) } return r }
    { for (i = 0; i < 64; i++) { b = i < 32 ? hex(substr($0, 2 * i + 1, 1)) * 16 + hex(substr($0, 2 * i + 2, 1)) : 0
        printf "\\%03o", xor(b, with) } }'
}
hexadecimal() { od -An -v -tx1 | tr -d ' \n'; }
escapes() { awk '{ for (i = 1; i < length($0); i += 2) printf "\\%03o", (index("0123456789abcdef", substr($0, i, 1)) - 1) * 16 + index("0123456789abcdef", substr($0, i + 1, 1)) - 1 }'; }
hmac() { # the message on standard input
  inner=$({ printf "$inner_pad"; cat; } | openssl dgst -sha256 -binary | hexadecimal)
  { printf "$outer_pad"; printf "$(printf '%s\n' "$inner" | escapes)"; } | openssl dgst -sha256 -binary | hexadecimal
}
inner_pad=$(pad 54)
outer_pad=$(pad 92)

# --- manifests -----------------------------------------------------------------------------------------------------
# authenticated ID: leaves the authentic body in $work/body; an error otherwise.
authenticated() {
  case $1 in *[!0-9a-z-]*|'') die "not an artefact id: $1" 2 ;; esac
  where="manifests/$1.json"
  [ -f "$here/$where" ] || die "there is no artefact $1 here ($where is missing)" 2
  sed '$d' "$here/$where" > "$work/body"
  tail -n 1 "$here/$where" > "$work/last"
  said_id=$(sed -n 's/.*"key": *"\([0-9a-f]*\)".*/\1/p' "$work/last")
  said_mac=$(sed -n 's/.*"mac": *"\([0-9a-f]*\)".*/\1/p' "$work/last")
  [ -n "$said_mac" ] || die "$where is damaged: it has no authentication line" 3
  [ "$said_id" = "$key_id" ] || die "$where is sealed with key $said_id; this is key $key_id" 12
  mac=$({ printf 'recoup manifest v1\n%s\n' "$where"; cat "$work/body"; } | hmac)
  [ "$mac" = "$said_mac" ] || die "$where is not authentic: it was changed after it was written" 3
  grep -q '^ "recoup_manifest": 1,*$' "$work/body" || die "$where has a version this script does not know" 4
}
# field NAME: a text field of the body.   objects: lines "stream key sha256 stored_bytes compression content".
field() { sed -n 's/^ "'"$1"'": "\(.*\)",\{0,1\}$/\1/p' "$work/body"; }
objects() {
  awk '
    /^ "objects": \[/ { inside = 1; next }
    /^ \]/ { inside = 0 }
    !inside { next }
    /^  \{/ { split("", v); next }
    /^   "[a-z_0-9]+": / { line = $0; sub(/^   "/, "", line); name = line; sub(/".*/, "", name)
      sub(/^[a-z_0-9]+": /, "", line); sub(/,$/, "", line); gsub(/^"|"$/, "", line); v[name] = line; next }
    /^  \}/ { print v["stream"], v["key"], v["sha256"], v["stored_bytes"], v["compression"], v["content"] }
  ' "$work/body"
}

# --- objects -------------------------------------------------------------------------------------------------------
matching() { # key sha256: the object is there and its digest matches
  case $1 in /*|*..*|*[!A-Za-z0-9._/-]*) die "not an object key: $1" 3 ;; esac
  [ -f "$here/$1" ] || die "$1 is missing" 3
  found=$(openssl dgst -sha256 -r "$here/$1" | sed 's/[^0-9a-f].*//')
  [ "$found" = "$2" ] || die "$1 is damaged: its digest is not the one in the manifest. Nothing was decrypted." 3
}
plain() { # key compression: the plain bytes to standard output; a failure is left in $work/failed
  case $2 in zstd) need zstd; unpack='zstd -dc' ;; gzip) need gunzip; unpack='gunzip -c' ;; *) die "unknown compression $2" 4 ;; esac
  { openssl enc -d -aes-256-cbc -pbkdf2 -md sha256 -iter "$iterations" -pass "file:$key_file" -in "$here/$1" \
      || echo "openssl could not decrypt $1" >> "$work/failed"; } \
  | { $unpack || echo "$1 does not decompress" >> "$work/failed"; }
}
succeeded() { [ ! -s "$work/failed" ] || die "$(cat "$work/failed")" 3; }
checked() { objects > "$work/objects"; while read -r _ key sha _; do matching "$key" "$sha"; done < "$work/objects"; }

# A restored cluster must never come up on another cluster's tablespaces: each gets a folder of its own.
tablespaces() { # FOLDER
  : > "$work/map"
  while read -r stream key _ _ compression _; do
    oid=${stream%.tar}
    case $oid in *[!0-9]*|'') continue ;; esac
    mkdir -p "$1-tablespaces/$oid"
    plain "$key" "$compression" | tar -x --numeric-owner -p -C "$1-tablespaces/$oid" -f - || echo "tar failed" >> "$work/failed"
    place=$(CDPATH='' cd -- "$1-tablespaces/$oid" && pwd)
    if [ -e "$1/tablespace_map" ]; then printf '%s %s\n' "$oid" "$place" >> "$work/map"
    else rm -f "$1/pg_tblspc/$oid"; ln -s "$place" "$1/pg_tblspc/$oid"; fi
    echo "tablespace $oid is in $place"
  done < "$work/objects"
  if [ -e "$1/tablespace_map" ]; then cat "$work/map" > "$1/tablespace_map"; fi
}

# An incremental backup is put together with all that it builds on, by PostgreSQL's own pg_combinebackup.
depends() { awk '/^ "depends_on": \[/ { inside = 1; next } /^ \]/ { inside = 0 } inside { gsub(/[ ",]/, ""); print }' "$work/body"; }

chain() { # ID FOLDER: authenticated, and the folder is free
  chain_id=$1; target=$2; ids="$(depends) $1"
  rmdir "$target" 2> /dev/null || :
  parts=$target.recoup-parts; number=0
  [ ! -e "$parts" ] || { parts=; die "$target.recoup-parts is in the way: remove it" 5; }
  mkdir -p "$parts"; chmod 700 "$parts"
  parts=$(CDPATH='' cd -- "$parts" && pwd)
  for one in $ids; do
    restore "$one" "$parts/$number" part > /dev/null
    # The servers' links would lead to the places of production.
    for space in "$parts/$number-tablespaces"/*; do
      [ -d "$space" ] || continue
      rm -f "$parts/$number/pg_tblspc/${space##*/}"; ln -s "$space" "$parts/$number/pg_tblspc/${space##*/}"
    done
    rm -f "$parts/$number/tablespace_map"
    echo "$one: fetched"
    number=$((number + 1))
  done
  newest=$parts/$((number - 1)); major=$(cat "$newest/PG_VERSION")
  PATH="$PATH:/usr/lib/postgresql/$major/bin:/usr/pgsql-$major/bin"
  need pg_combinebackup
  case $(pg_combinebackup --version) in *" $major".*|*" $major"[a-z]*) ;; *) die "this needs the pg_combinebackup of PostgreSQL $major" 2 ;; esac
  mkdir -p "$target"; place=$(CDPATH='' cd -- "$target" && pwd); rmdir "$target"
  set -- --output "$place"
  for space in "$newest-tablespaces"/*; do
    [ -d "$space" ] || continue
    mkdir -p "$place-tablespaces"
    set -- "$@" --tablespace-mapping "$space=$place-tablespaces/${space##*/}"
    echo "tablespace ${space##*/} is in $place-tablespaces/${space##*/}"
  done
  at=0
  while [ "$at" -lt "$number" ]; do set -- "$@" "$parts/$at"; at=$((at + 1)); done
  pg_combinebackup "$@" || die "pg_combinebackup failed; $target is not usable" 1
  # Servers of 17 leave out which rows were deleted since: a visibility map of parts is wrong, and none is right.
  for space in "" "$newest-tablespaces"/*; do
    from=${space:-$newest}; to=$place${space:+-tablespaces/${space##*/}}
    [ -d "$from" ] || continue
    maps=$(cd "$from" && find . -name 'INCREMENTAL.*_vm') || die "cannot look into $from; $target is not usable" 1
    for map in $maps; do rm -f "$to/${map%/*}/${map##*/INCREMENTAL.}"; done
  done
  authenticated "$chain_id"
  echo "artefact $chain_id ($(field service), incremental, begun $(field begun)) is in $target. RESTORE.md says how to start it."
}

restore() { # ID FOLDER [part]
  authenticated "$1"; checked
  [ ! -e "$2" ] || [ -z "$(ls -A "$2")" ] || die "$2 is not empty: restore into an empty folder" 5
  kind=$(field kind)
  if [ "$kind" = incremental ]; then
    [ "${3:-}" = part ] || { chain "$1" "$2"; return; }
    kind=base
  fi
  mkdir -p "$2"
  while read -r stream key _ _ compression content; do
    case $kind:$content:$stream in
      base:tar:base.tar) plain "$key" "$compression" | tar -x --numeric-owner -p -C "$2" -f - || echo "tar failed" >> "$work/failed" ;;
      base:tar:*) continue ;;
      *:tar:*) mkdir -p "$2/${stream%.tar}"
        plain "$key" "$compression" | tar -x --numeric-owner -p -C "$2/${stream%.tar}" -f - || echo "tar failed" >> "$work/failed" ;;
      *) plain "$key" "$compression" > "$2/$stream" ;;
    esac
    succeeded
    echo "$stream: restored"
  done < "$work/objects"
  if [ "$kind" = base ]; then tablespaces "$2"; succeeded; chmod 700 "$2"; fi
  echo "artefact $1 ($(field service), $kind, begun $(field begun)) is in $2. RESTORE.md says how to start it."
}

# --- WAL -----------------------------------------------------------------------------------------------------------
# wal_plain KEY: the plain bytes into $work/plain, once the MAC in the key's name matched; status 1 otherwise.
wal_plain() {
  named=${1%.zst.enc}; said=${named##*-}; bound=${named%-*}
  mac=$({ printf 'recoup wal v1\n%s\n' "$bound"; cat "$here/$1"; } | hmac)
  case $mac in "$said"*) [ "${#said}" = 32 ] ;; *) false ;; esac || {
    printf 'restore.sh: %s is not authentic: changed, cut or renamed. It was left out.\n' "$1" >&2
    echo "$1" >> "$work/bad"; return 1; }
  plain "$1" zstd > "$work/plain"; succeeded
}
size_of() { wc -c < "$1" | tr -d ' '; }
# The size of a segment is in the header of its first page (XLogLongPageHeaderData, bytes 32 to 35, little-endian).
segment_size() { od -An -v -tu1 -j32 -N4 "$1" | awk '{ print $1 + 256 * ($2 + 256 * ($3 + 256 * $4)) }'; }

# Pieces of one segment, in the order of their names, joined as far as there is no hole. They may overlap.
add_piece() { # FOLDER NAME FROM TO
  file=$1/$2.partial; from=$(printf '%d' "0x$3"); have=0
  if [ -e "$file" ]; then have=$(size_of "$file"); fi
  if [ "$from" -gt "$have" ]; then return; fi
  if [ "$(printf '%d' "0x$4")" -gt "$have" ]; then tail -c "+$((have - from + 1))" "$work/plain" >> "$file"; fi
}

wal() { # SERVICE FOLDER [SYSTEM]
  case $1 in *[!A-Za-z0-9._-]*|''|.*) die "not a service: $1" 2 ;; esac
  [ -d "$here/wal/$1" ] || die "there is no WAL of $1 here" 10
  system=${3:-$(ls "$here/wal/$1")}
  case $system in *[!0-9]*) die "there is WAL of several clusters; name one: $(echo $system)" 2 ;; esac
  [ -d "$here/wal/$1/$system" ] || die "there is no WAL of cluster $system here" 10
  [ ! -e "$2" ] || [ -z "$(ls -A "$2")" ] || die "$2 is not empty: restore into an empty folder" 5
  mkdir -p "$2"; : > "$work/bad"
  (cd "$here" && find "wal/$1/$system" -type f -name '*.zst.enc') | sort > "$work/wal"
  while read -r key; do
    name=${key##*/}
    case $name in
      *.gap-*) wal_plain "$key" || continue; printf 'lost WAL: %s %s\n' "${name%%.gap-*}" "$(cat "$work/plain")"; continue ;;
      *.partial-*) continue ;;
    esac
    wal_plain "$key" || continue
    if [ -e "$2/${name%%-*}" ] && ! cmp -s "$2/${name%%-*}" "$work/plain"; then die "there are two different ${name%%-*}" 3; fi
    mv "$work/plain" "$2/${name%%-*}"
  done < "$work/wal"
  while read -r key; do
    name=${key##*/}; segment=${name%%.*}
    case $name in *.partial-*) ;; *) continue ;; esac
    [ ! -e "$2/$segment" ] && wal_plain "$key" || continue
    range=${name#*.}; range=${range%%.*}
    add_piece "$2" "$segment" "${range%-*}" "${range#*-}"
  done < "$work/wal"
  for file in "$2"/*.partial; do
    [ -e "$file" ] || continue
    echo "${file##*/}: the first $(size_of "$file") bytes; the rest is zeros"
    missing=$(($(segment_size "$file") - $(size_of "$file")))
    head -c "$missing" /dev/zero >> "$file"
  done
  echo "$(ls "$2" | grep -c '^[0-9A-F]\{24\}$') whole segments of cluster $system are in $2. RESTORE.md says how to use them."
  [ ! -s "$work/bad" ] || die "$(grep -c . "$work/bad") damaged objects were left out" 3
}

case $verb in
  list)
    for file in "$here"/manifests/*.json; do
      [ -e "$file" ] || die "there are no manifests in $here" 10
      id=$(basename "$file" .json)
      (authenticated "$id"; printf '%s  %-12s %-6s %s\n' "$id" "$(field service)" "$(field kind)" "$(field begun)")
    done ;;
  check) [ $# = 1 ] || usage
    authenticated "$1"; checked
    while read -r stream key _ _ compression _; do plain "$key" "$compression" > /dev/null; succeeded; echo "$stream: ok"; done < "$work/objects" ;;
  restore) [ $# = 2 ] || usage; restore "$1" "$2" ;;
  stream) [ $# = 2 ] || usage
    authenticated "$1"; objects > "$work/objects"
    line=$(awk -v want="$2" '$1 == want' "$work/objects")
    [ -n "$line" ] || die "artefact $1 has no stream $2; it has: $(awk '{ printf "%s ", $1 }' "$work/objects")" 2
    set -- $line
    matching "$2" "$3"; plain "$2" "$5"; succeeded ;;
  wal) [ $# = 2 ] || [ $# = 3 ] || usage; wal "$@" ;;
  *) usage ;;
esac
