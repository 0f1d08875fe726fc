#!/bin/sh
# Runs recoup in the container. With a file of NAME=value lines in $RECOUP_ENVIRONMENT_FILE (a Compose secret), these
# become its environment, and stand in no `docker inspect`.
#
#   recoup-entrypoint backup              once
#   recoup-entrypoint every 86400 backup  now and then every so many seconds, until the container is stopped
set -eu

if [ -n "${RECOUP_ENVIRONMENT_FILE:-}" ]; then
    set -a
    # shellcheck disable=SC1090
    . "$RECOUP_ENVIRONMENT_FILE"
    set +a
fi

if [ "${1:-}" != every ]; then
    exec recoup "$@"
fi

seconds=$2
shift 2
running=
trap 'if [ -n "$running" ]; then kill "$running" 2>/dev/null && wait "$running" || :; fi; exit 0' TERM INT
while :; do
    recoup "$@" &
    running=$!
    wait "$running" || echo "recoup $* ended with $?" >&2
    sleep "$seconds" &
    running=$!
    wait "$running" || :
done
