#!/usr/bin/env bash
# Start a separate PostgreSQL for MLflow and create its two databases. Repeatable.
# It listens on no port: only on a socket in a folder of mode 700, where the operating system
# identifies the user ("peer"), so there is no password. Data are in WSSS_PG_DIR.
set -euo pipefail
umask 077
. ~/.wsss/env.sh
if [ -n "${MLFLOW_BACKEND_URI:-}" ]; then
  echo "PostgreSQL: not started, ~/.config/wsss/node.env names a database"
  exit 0
fi

as_owner() { "$@"; }
dir="${WSSS_PG_DIR:-$HOME/.wsss/postgres}"
if [ "$(id -u)" = 0 ]; then  # PostgreSQL refuses root
  as_owner() { runuser -u postgres -- "$@"; }
  dir="${WSSS_PG_DIR:-/var/lib/wsss-postgres}"
fi
bin="$(find /usr/lib/postgresql /usr/pgsql-* -maxdepth 3 -name initdb 2> /dev/null | sort -V | tail -n 1 || true)"
bin="${bin:-$(command -v initdb || true)}"
[ -n "$bin" ] || {
  echo "error: PostgreSQL is not installed; install it (cluster/install_postgres.sh), or name a" \
    "database as MLFLOW_BACKEND_URI in ~/.config/wsss/node.env on the laptop" >&2
  exit 2
}
bin="$(dirname "$bin")"

mkdir -p "$dir/socket"
if [ "$(id -u)" = 0 ]; then chown postgres: "$dir" "$dir/socket"; fi
cd "$dir"
if [ ! -s "$dir/data/PG_VERSION" ]; then
  # Under its own name only when it is whole: interrupted, it would stay without these settings.
  as_owner rm -rf "$dir/new"
  as_owner "$bin/initdb" --pgdata "$dir/new" --username wsss --encoding UTF8 --locale C \
    --auth-local peer --auth-host reject > /dev/null
  as_owner tee -a "$dir/new/postgresql.conf" > /dev/null << END
listen_addresses = ''
unix_socket_directories = '$dir/socket'
unix_socket_permissions = 0700
END
  echo "local all wsss peer map=wsss" | as_owner tee "$dir/new/pg_hba.conf" > /dev/null
  echo "wsss $(id -un) wsss" | as_owner tee "$dir/new/pg_ident.conf" > /dev/null
  as_owner mv -T "$dir/new" "$dir/data"
fi
if ! as_owner "$bin/pg_ctl" status --pgdata "$dir/data" > /dev/null; then
  as_owner "$bin/pg_ctl" start --wait --timeout 60 --pgdata "$dir/data" --log "$dir/log" > /dev/null < /dev/null
fi
for name in mlflow mlflow_auth; do
  found="$("$bin/psql" -h "$dir/socket" -U wsss -d postgres -tAc "SELECT 1 FROM pg_database WHERE datname = '$name'")"
  [ "$found" = 1 ] || "$bin/createdb" -h "$dir/socket" -U wsss "$name"
done
echo "$dir/socket" > ~/.wsss/postgres_socket
echo "PostgreSQL: $dir/socket"
