#!/usr/bin/env bash
# Install the environment of requirements.lock, with the same make target as on a laptop.
#   install.sh [--apt]   with --apt also the system packages (Debian, Ubuntu; needs sudo)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ "${1:-}" = --apt ]; then
  # A fresh machine updates itself at its first start and holds apt's lock meanwhile.
  apt() { sudo DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 "$@"; }
  apt update
  apt install make python3-venv rsync
fi
# Hosts with one home folder share the environment: one of them installs it, the others wait.
mkdir -p ~/.wsss
flock ~/.wsss/install.lock make setup PYTHON="${WSSS_PYTHON:-python3}"
# A node with another Ray would be unusable without a message; fail here instead.
.venv/bin/python -c 'import ray, torch; print("ray", ray.__version__, "torch", torch.__version__)'
