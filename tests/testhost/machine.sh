#!/bin/bash
# A pretend machine: a real Docker engine with a network, a process tree, mounts and a host name of its own.
#
#   machine.sh NAME FOLDER [options for dockerd]
#
# Runs in the foreground. It says "ready" when the engine answers, and the machine dies when standard input is
# closed, so a test run that is killed leaves no machine behind. FOLDER then holds
#   disk/         what the machine keeps over a power cut: its /var/lib/docker
#   docker.sock   its engine, for callers outside
#   pid           its first process: kill -9 of that one is a power cut
#   engine.log    what dockerd said
#   resolv.conf   its name server, which knows no name
#   boot_id, machine-id   who it is, and which of its starts this is
# A command runs on the machine with:  nsenter -t "$(cat FOLDER/pid)" -m -n -u -i -p -- COMMAND
#
# The network is unshared before dockerd starts: its bridge, addresses and packet filter rules must never be made in
# the caller's network, where they would stay.
set -euo pipefail
name=$1 folder=$(realpath -m "$2")
shift 2
cgroup=/recoup-testhost-$name
mkdir -p "$folder/disk"
rm -f "$folder/pid" "$folder/docker.sock"
echo nameserver 127.0.0.1 > "$folder/resolv.conf"
cat /proc/sys/kernel/random/uuid > "$folder/boot_id" # another one at each start, as of a real machine
[ -s "$folder/machine-id" ] || tr -d - < /proc/sys/kernel/random/uuid > "$folder/machine-id"
here=$(dirname "$(realpath "$0")")

export folder name cgroup here
# --kill-child ties the first process, and with it everything on the machine, to unshare, and that is tied to us.
setsid setpriv --pdeathsig KILL unshare --mount --net --uts --ipc --pid --mount-proc --propagation private --fork --kill-child \
  bash -euc '
    hostname "$name"
    ip link set lo up
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir -p /var/lib/docker
    mount --bind "$folder/disk" /var/lib/docker
    names=$(realpath -m /etc/resolv.conf) # on many machines a link into /run, which is empty here
    mkdir -p "${names%/*}"
    [ -e "$names" ] || touch "$names"
    mount --bind "$folder/resolv.conf" "$names"
    mount --bind "$folder/boot_id" /proc/sys/kernel/random/boot_id
    [ ! -e /etc/machine-id ] || mount --bind "$folder/machine-id" /etc/machine-id
    "$here/entrypoints/names.pl" &
    exec dockerd --host unix:///run/docker.sock --host "unix://$folder/docker.sock" --cgroup-parent "$cgroup" "$@"
  ' machine "$@" >> "$folder/engine.log" 2>&1 < /dev/null &
outer=$!

power_off() {
  kill -9 "$outer" 2> /dev/null || true
  wait "$outer" 2> /dev/null || true
  # The kernel keeps the empty control groups, and needs a moment until the last process has left them.
  for _ in $(seq 50); do
    find /sys/fs/cgroup -depth -type d -path "*$cgroup*" -exec rmdir {} + 2> /dev/null || true
    [ -z "$(find /sys/fs/cgroup -maxdepth 2 -type d -path "*$cgroup" 2> /dev/null)" ] && break
    sleep 0.1
  done
}
trap power_off EXIT
trap 'exit 143' TERM INT HUP

for _ in $(seq 300); do
  if curl --silent --fail --max-time 2 --unix-socket "$folder/docker.sock" http://engine/_ping > /dev/null; then
    pgrep -P "$outer" > "$folder/pid.new"
    mv "$folder/pid.new" "$folder/pid"
    echo ready
    cat > /dev/null # until the caller closes it, or dies
    exit 0
  fi
  kill -0 "$outer" 2> /dev/null || break
  sleep 0.1
done
echo "the engine of $name did not start:" >&2
tail -n 5 "$folder/engine.log" >&2
exit 1
