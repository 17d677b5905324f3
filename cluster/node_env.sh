#!/usr/bin/env bash
# Write ~/.wsss/env.sh, which every other script and `ray start` on this node reads. Repeatable.
#   node_env.sh --store URL-OR-PATH [--tmp FOLDER] [--region REGION] [--on-path]
set -euo pipefail
umask 077

store="" tmp="/tmp/wsss-$(id -un)" region="" on_path=""
while [ $# -gt 0 ]; do
  case "$1" in
    --store) store="$2"; shift 2 ;;
    --tmp) tmp="$2"; shift 2 ;;
    --region) region="$2"; shift 2 ;;
    --on-path) on_path=1; shift ;;
    *) echo "error: unknown option $1; see the head of $0" >&2; exit 2 ;;
  esac
done
[ -n "$store" ] || { echo "error: --store is missing; give s3://bucket/prefix or a folder" >&2; exit 2; }

mkdir -p ~/.wsss "$tmp"
# A folder in /tmp that somebody else made could be read or replaced by them.
[ -O "$tmp" ] || { echo "error: $tmp belongs to somebody else; choose another with --tmp" >&2; exit 2; }
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
part="$(mktemp ~/.wsss/env.XXXXXX)"
{
  echo "# Written by cluster/node_env.sh; changes here are lost."
  printf 'export PATH=%q:$PATH\n' "$here/.venv/bin"
  # Ray's sockets, logs and session are in this cluster's own folder, so that another Ray on a
  # shared host is never mistaken for this one. Ray adds /ray.
  printf 'export RAY_TMPDIR=%q\n' "$tmp"
  # Its processes make sockets in TMPDIR, whose path must be short for that.
  printf 'TMPDIR="${TMPDIR:-/tmp}"; [ "${#TMPDIR}" -le 40 ] || export TMPDIR=%q\n' "$tmp"
  echo 'export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0'
  # Ray's launcher runs commands with OMP_NUM_THREADS=1, which trials would inherit; without it, Ray
  # gives each trial as many threads as it has CPUs.
  echo 'unset OMP_NUM_THREADS'
  printf 'export WSSS_STORE=%q\n' "$store"
  [ -z "$region" ] || printf 'export AWS_DEFAULT_REGION=%q\n' "$region"
  # Only the sweep's driver talks to MLflow, and it runs on the head. Workers have the line too,
  # because hosts may share one home folder.
  echo 'export MLFLOW_TRACKING_URI=http://127.0.0.1:${WSSS_MLFLOW_PORT:-5000}'
  echo 'if [ -r ~/.config/wsss/node.env ]; then set -a; . ~/.config/wsss/node.env; set +a; fi'
} > "$part"
mv "$part" ~/.wsss/env.sh

if [ -n "$on_path" ] && ! grep -qs 'wsss/env.sh' ~/.bashrc; then
  echo '. ~/.wsss/env.sh  # added by cluster/node_env.sh' >> ~/.bashrc
fi
