#!/usr/bin/env bash
# Start the MLflow server on the head, on loopback, with authentication. Repeatable.
# The admin's password comes from ~/.config/wsss/mlflow_password, which `python -m sweeps.cluster.secrets`
# made on the laptop. MLflow takes it at its first start, and has no default.
set -euo pipefail
umask 077
. ~/.wsss/env.sh
port="${WSSS_MLFLOW_PORT:-5000}"
state=~/.wsss/mlflow
password_file=~/.config/wsss/mlflow_password
mkdir -p "$state"

[ -s "$password_file" ] || {
  echo "error: $password_file is missing; run 'python -m sweeps.cluster.secrets' on the laptop, then 'ray up' again" >&2
  exit 2
}
if [ -s "$state/pid" ] && kill -0 "$(cat "$state/pid")" 2> /dev/null \
  && grep -qz mlflow "/proc/$(cat "$state/pid")/cmdline"; then
  echo "MLflow: already running on 127.0.0.1:$port"
  exit 0
fi

if (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null; then
  echo "error: another program listens on port $port of this host; name a free one as WSSS_MLFLOW_PORT" \
    "in ~/.config/wsss/node.env on the laptop" >&2
  exit 2
fi

if [ -n "${MLFLOW_BACKEND_URI:-}" ]; then
  backend="$MLFLOW_BACKEND_URI"
  users="${MLFLOW_AUTH_DATABASE_URI:-sqlite:///$state/users.db}"
else
  socket="$(cat ~/.wsss/postgres_socket)"
  backend="postgresql+psycopg2://wsss@/mlflow?host=$socket"
  users="postgresql+psycopg2://wsss@/mlflow_auth?host=$socket"
fi
[ -s "$state/secret_key" ] || python -c 'import secrets; print(secrets.token_hex(32))' > "$state/secret_key"
cat > "$state/auth.ini" << END
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = ${users//%/%%}
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
END

# The driver on this node finds the password here; an account's own credentials are left alone.
if [ ! -e ~/.mlflow/credentials ] || grep -q '^# wsss' ~/.mlflow/credentials; then
  mkdir -p ~/.mlflow
  printf '# wsss: written by cluster/start_mlflow.sh\n[mlflow]\nmlflow_tracking_username = admin\nmlflow_tracking_password = %s\n' \
    "$(cat "$password_file")" > ~/.mlflow/credentials
  chmod 600 ~/.mlflow/credentials
else
  echo "warning: ~/.mlflow/credentials is not ours and is kept; give the sweep MLFLOW_TRACKING_USERNAME and _PASSWORD" >&2
fi

# Secrets are passed in the environment, not as arguments, which any user of a host can list. The
# host names are those that a browser sends through a tunnel; any other gets 403 (DNS rebinding).
MLFLOW_AUTH_ADMIN_PASSWORD="$(cat "$password_file")" \
MLFLOW_FLASK_SERVER_SECRET_KEY="$(cat "$state/secret_key")" \
MLFLOW_AUTH_CONFIG_PATH="$state/auth.ini" MLFLOW_BACKEND_STORE_URI="$backend" \
MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
  setsid nohup mlflow server --app-name basic-auth --host 127.0.0.1 --port "$port" --workers 1 \
  --artifacts-destination "$WSSS_STORE/mlartifacts" \
  --allowed-hosts "localhost:$port,127.0.0.1:$port" >> "$state/log" 2>&1 < /dev/null &
echo $! > "$state/pid"

for _ in $(seq 120); do
  if python - "$port" << 'END' 2> /dev/null; then echo "MLflow: 127.0.0.1:$port"; exit 0; fi
import sys, urllib.request
urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/health", timeout=2)
END
  kill -0 "$(cat "$state/pid")" 2> /dev/null || break
  sleep 1
done
echo "error: MLflow did not start; the end of $state/log on this node:" >&2
tail -n 20 "$state/log" >&2
exit 1
