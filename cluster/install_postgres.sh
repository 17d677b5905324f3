#!/usr/bin/env bash
# Install PostgreSQL on Debian or Ubuntu without its default database server, which listens on
# a TCP port; start_postgres.sh makes one that only listens on a socket.
set -euo pipefail
apt() { sudo DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 "$@"; }
apt update
apt install postgresql-common
echo 'create_main_cluster = false' | sudo tee /etc/postgresql-common/createcluster.d/wsss.conf > /dev/null
apt install postgresql
