#!/usr/bin/env bash
# Set up one test host: started by hosts.py as the first process of new network, mount, process and
# name spaces, which end with it.
#   host.sh NAME ADDRESS GATEWAY FOLDER CHECKOUT BASE
# FOLDER: home/ and tmp/ of the host. CHECKOUT: with .venv. BASE: where .venv's Python is installed.
set -euo pipefail
name=$1 address=$2 gateway=$3 folder=$4 checkout=$5 base=$6
home="$(getent passwd root | cut -d: -f6)"

mount --make-rprivate /
hostname "$name"
ip link set lo up
for _ in $(seq 300); do
  if ip link show eth0 > /dev/null 2>&1; then break; fi
  sleep 0.1
done
ip addr add "$address/24" dev eth0
ip link set eth0 up
ip route add default via "$gateway"  # Ray finds a host's address by its default route

# To avoid installing 6 GB on each host, ~/wsss-sweeps/.venv is the laptop's, with a layer for the
# host's changes, such as the stamp by which `make setup` sees that it is done.
mkdir -p "$folder/home/wsss-sweeps/.venv" "$folder/layer" "$folder/work"
mount -t overlay overlay -o "lowerdir=$checkout/.venv,upperdir=$folder/layer,workdir=$folder/work" \
  "$folder/home/wsss-sweeps/.venv"
touch "$folder/home/wsss-sweeps/.venv/.installed"

# Mount FROM at path TO, even if TO is in the home folder, which is about to be replaced.
show() {
  local target=$2
  case "$target" in "$home"/*) target="$folder/home${target#"$home"}" ;; esac
  mkdir -p "$target"
  mount --rbind "$1" "$target"
}
case "$base" in "$home"/*) show "$base" "$base" ;; esac
# .venv's programs name the laptop's checkout: on this host that path is its own copy.
show "$folder/home/wsss-sweeps" "$checkout"
mount --rbind "$folder/home" "$home"
mount -t tmpfs -o size=4g tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
mount --bind "$folder/tmp" /tmp

cd /
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  "$(command -v sshd)" -D -e -f "$home/.sshd/config"
