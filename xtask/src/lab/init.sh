#!/bin/sh
# PID 1 of the lab. The host's root filesystem is / (virtio-fs, writable): put a memory overlay over it, so that nothing
# reaches the host except through the directories named in $LAB/writable, then run $LAB/command.
#
# $1: directory on the host with this boot's files; $2: root of the kernel modules.
LAB=$1
MODULES=$2
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

die() {
    echo "lab: $*" >/dev/console
    sync
    echo b >/proc/sysrq-trigger
    sleep 60
}

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o size=90%,mode=755 tmpfs /run || die "cannot mount /run"
modprobe -d "$MODULES" overlay || die "cannot load overlay from $MODULES"

mkdir -p /run/upper /run/work /run/root
mount -t overlay -o lowerdir=/,upperdir=/run/upper,workdir=/run/work overlay /run/root || die "cannot mount the root overlay"
NEW=/run/root
for directory in dev proc sys run tmp root mnt var/lib/bulkhead; do mkdir -p "$NEW/$directory"; done
mount --move /proc "$NEW/proc"
mount --move /sys "$NEW/sys"
mount --move /dev "$NEW/dev" 2>/dev/null || mount -t devtmpfs devtmpfs "$NEW/dev" || die "cannot mount /dev"
for directory in run tmp var/lib/bulkhead; do mount -t tmpfs tmpfs "$NEW/$directory" || die "cannot mount /$directory"; done
chmod 1777 "$NEW/tmp"
mkdir -p "$NEW/run/lab" "$NEW/run/lock"
mount --bind "$LAB" "$NEW/run/lab" || die "cannot bind $LAB"
while read -r directory; do
    mkdir -p "$NEW$directory" && mount --bind "$directory" "$NEW$directory" || die "cannot bind $directory"
done <"$LAB/writable"
mkdir -p "$NEW/mnt/host"
cd "$NEW" || die "cannot enter the overlay"
pivot_root . mnt/host || die "cannot change the root"
cd /
# The root of the host stays mounted where the overlay has it as its lower layer; nobody else sees it.
umount -l /mnt/host
LAB=/run/lab

mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
ln -sf /proc/self/fd /dev/fd
ln -sf fd/0 /dev/stdin
ln -sf fd/1 /dev/stdout
ln -sf fd/2 /dev/stderr
for module in kvm-amd tun vhost_vsock loop vsock_loopback; do modprobe -d "$MODULES" "$module" || die "cannot load $module"; done
mkfifo /run/held
"$LAB/xtask" lab-hold-kvm </dev/null >/run/held 2>/dev/console &
read -r held </run/held || die "cannot hold KVM's switches"
ip link set lo up
hostname lab
ulimit -n 65536

for port in /sys/class/virtio-ports/*; do
    # The terminal's port has no name.
    [ -e "$port/name" ] && read -r name <"$port/name" && eval "port_$name=/dev/${port##*/}"
done
[ -n "$port_status" ] || die "no status port"

if [ -e "$LAB/interactive" ]; then
    setsid -c sh "$LAB/command" </dev/hvc0 >/dev/hvc0 2>&1 &
    wait $!
    status=$?
else
    mkfifo /run/stdout /run/stderr
    cat /run/stdout >"$port_stdout" &
    out=$!
    cat /run/stderr >"$port_stderr" &
    err=$!
    setsid sh "$LAB/command" </dev/null >/run/stdout 2>/run/stderr &
    wait $!
    status=$?
    # Whatever the command left running may hold its output open: give it a moment, not more.
    (sleep 5; kill $out $err) 2>/dev/null &
    wait $out $err
fi
sync
echo "$status" >"$port_status"
echo b >/proc/sysrq-trigger
sleep 60
