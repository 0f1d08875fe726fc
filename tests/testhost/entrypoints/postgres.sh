#!/bin/bash
# Stand-in for the official image's entry point: the same variables (POSTGRES_USER, _PASSWORD, _PASSWORD_FILE, _DB,
# _INITDB_ARGS, PGDATA), the same user 999, the same folder of first-start scripts. Written for the tests.
set -euo pipefail
case ${1:-} in -*) set -- postgres "$@" ;; esac
[ "${1:-}" = postgres ] || exec "$@"

if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA" /run/postgresql
  chmod 0700 "$PGDATA"
  chown 999:999 /run/postgresql
  find "$PGDATA" ! -uid 999 -exec chown 999:999 {} +
  exec setpriv --reuid 999 --regid 999 --clear-groups "$0" "$@"
fi

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  user=${POSTGRES_USER:-postgres} database=${POSTGRES_DB:-${POSTGRES_USER:-postgres}}
  password=${POSTGRES_PASSWORD:-$(cat "${POSTGRES_PASSWORD_FILE:?neither POSTGRES_PASSWORD nor POSTGRES_PASSWORD_FILE is set}")}
  # shellcheck disable=SC2086 # several options in one variable, as in the official image
  initdb --pgdata "$PGDATA" --username "$user" --pwfile <(printf '%s\n' "$password") ${POSTGRES_INITDB_ARGS:-}
  echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf"
  echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
  pg_ctl --pgdata "$PGDATA" --options "-c listen_addresses=''" --wait start
  run() { psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$user" "$@"; }
  [ "$database" = postgres ] || run --dbname postgres --command "CREATE DATABASE \"$database\""
  for file in /docker-entrypoint-initdb.d/*; do
    case $file in
      *.sh) . "$file" ;;
      *.sql) run --dbname "$database" --quiet --file "$file" ;;
    esac
  done
  pg_ctl --pgdata "$PGDATA" --mode fast --wait stop
fi
exec "$@"
