#!/usr/bin/env bash
# End this cluster's Ray on this node, and no other. Repeatable.
# `ray stop` ends every Ray process that it may signal, even those of the same user's other clusters.
# This ends only our processes that name this cluster's session folder.
set -euo pipefail
[ -r ~/.wsss/env.sh ] || exit 0  # nothing was ever started
. ~/.wsss/env.sh

ours() {
  local process line
  for process in /proc/[0-9]*; do
    [ -O "$process" ] || continue
    line="$(tr '\0' ' ' < "$process/cmdline" 2> /dev/null || true)"
    case "$line" in
      *"$RAY_TMPDIR/ray/session_"*) ;;
      # Ray's client server does not name the folder, but its environment does.
      *ray.util.client.server*) grep -qzxF "RAY_TMPDIR=$RAY_TMPDIR" "$process/environ" 2> /dev/null || continue ;;
      *) continue ;;
    esac
    echo "${process#/proc/}"
  done
}

# Workers, named ray::..., follow their raylet.
for signal in TERM KILL; do
  for _ in $(seq 20); do
    pids="$(ours)"
    [ -n "$pids" ] || exit 0
    # shellcheck disable=SC2086  # a list
    kill -s "$signal" $pids 2> /dev/null || true
    sleep 0.5
  done
done
echo "error: still running: $(ours | tr '\n' ' ')" >&2
exit 1
