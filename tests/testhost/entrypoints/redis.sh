#!/bin/sh
# Stand-in for the official image's entry point: options alone mean redis-server, and root becomes user 999.
set -e
case ${1:-} in -* | *.conf) set -- redis-server "$@" ;; esac
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
  find . ! -uid 999 -exec chown 999:999 {} +
  exec setpriv --reuid 999 --regid 999 --clear-groups "$0" "$@"
fi
# Without a password Redis accepts only loopback; the official image switches that off as well.
[ "$1" != redis-server ] || set -- "$@" --protected-mode no
exec "$@"
