#!/usr/bin/env bash
# Run a command, at most three times, with this cluster's Ray ended in between.
#   try_thrice.sh ray start ...
# Ray's raylet gives its agent 15 seconds to start, which no setting can change (ray issue 65983). On
# a cold or busy machine the first start may take longer, and Ray says "timed out during startup".
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
for attempt in 1 2 3; do
  if "$@"; then exit 0; fi
  echo "warning: attempt $attempt of 3 failed: $*" >&2
  bash "$here/stop_ray.sh"
done
echo "error: failed three times; Ray's logs are in ${RAY_TMPDIR:-/tmp}/ray/session_latest/logs" >&2
exit 1
