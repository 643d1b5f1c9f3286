# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# A small Linux guest in an emulated machine, for script tests; it needs no KVM. After support/service.sh:
#
#   . "$RESEAL_SOURCE/tests/support/guest.sh"
#   guest_needs                          # ends the test with 77 when something is not installed
#   guest_build INITRD SCRIPT MODULES FILE...
#                                        # SCRIPT runs as root in busybox' shell and prints; MODULES are loaded before;
#                                        # with /switch written, what is mounted on /mnt becomes the root;
#                                        # programs bring their libraries; FILE=PATH lies at PATH in the guest
#   guest_start INITRD LOG ARGUMENT...   # of QEMU; $guest_pid; the serial line is LOG
#   guest_wait                           # until it powered itself off; fails otherwise

guest_kernel() { find /boot -maxdepth 1 -name 'vmlinuz-*' -readable | sort -V | tail -n 1; }

guest_needs() {
    local p
    [ "$(uname -m)" = x86_64 ] || { echo "guests are x86_64"; exit 77; }
    for p in qemu-system-x86_64 busybox cpio; do
        command -v $p >/dev/null || { echo "no $p"; exit 77; }
    done
    guest_kernel_file=$(guest_kernel)
    guest_modules=/lib/modules/${guest_kernel_file##*/vmlinuz-}
    [ -n "$guest_kernel_file" ] && [ -s "$guest_modules/modules.dep" ] || { echo "no kernel for a guest: linux-image-cloud-amd64"; exit 77; }
}

# Paths of modules and all they need, in the order of loading; one that is built in has none.
guest_module_files() {
    local name line
    for name; do
        line=$(grep -E "/${name//_/[-_]}\.ko[^:/]*:" "$guest_modules/modules.dep") || continue
        # Needed ones stand last first behind the colon.
        printf '%s\n' "${line#*:}" | tr ' ' '\n' | grep . | tac
        printf '%s\n' "${line%%:*}"
    done | awk '!seen[$0]++'
}

guest_build() {
    local initrd=$1 script=$2 modules=$3 root file to library
    shift 3
    root=$(mktemp -d "$work/initrd-XXXXXX")
    mkdir -p "$root"/{bin,dev,proc,sys,tmp,run,mnt,modules}
    install -m 755 "$(command -v busybox)" "$root/bin/busybox"
    # shellcheck disable=SC2086  # a list of words
    guest_module_files $modules >"$root/modules/order"
    while read -r file; do install -m 644 "$guest_modules/$file" "$root/modules/"; done <"$root/modules/order"
    for file; do
        to=${file#*=} file=${file%%=*}
        install -D "$file" "$root/$to"
        for library in $(ldd "$file" 2>/dev/null | grep -o '/[^ ]*'); do
            [ -e "$root$library" ] || install -D "$library" "$root$library"
        done
    done
    cat >"$root/init" <<'I'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin:/usr/sbin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /run
while read -r m; do insmod "/modules/${m##*/}"; done </modules/order
sh /script
ended=$?
# Only the first process may change the root: a script that wants it leaves the program's path in /switch.
[ $ended -ne 0 ] || [ ! -s /switch ] || exec switch_root /mnt "$(cat /switch)"
echo "guest: end $ended"
sync
poweroff -f
I
    chmod 755 "$root/init"
    printf '%s\n' "$script" >"$root/script"
    (cd "$root" && find . | cpio --quiet -o -H newc) | gzip -1 >"$initrd"
    rm -rf "$root"
}

guest_pid=
guest_start() {
    local initrd=$1
    guest_log=$2
    shift 2
    # One virtual processor, no devices but those asked for; a guest that hangs is ended.
    # On a busy machine the emulated timer is late, which the kernel would take for a broken one.
    timeout -k 5 300 qemu-system-x86_64 -accel tcg -cpu max -m 512 -nodefaults -no-user-config -display none -no-reboot \
        -serial "file:$guest_log" -kernel "$guest_kernel_file" -initrd "$initrd" -append 'console=ttyS0 quiet panic=-1 no_timer_check' "$@" \
        </dev/null >"$guest_log.qemu" 2>&1 &
    guest_pid=$!
}

guest_wait() {
    local code
    wait "$guest_pid"
    code=$?
    guest_pid=
    # The serial line has carriage returns.
    tr -d '\r' <"$guest_log" >"$guest_log.text" 2>/dev/null
    [ $code -eq 0 ] && grep -q '^guest: end 0$' "$guest_log.text" ||
        fail "the guest did not end well (exit code $code): $(tail -n 20 "$guest_log.qemu" "$guest_log.text")"
}

# For service.sh's clean-up: a guest goes with its test.
guest_stop() {
    [ -z "$guest_pid" ] || { kill "$guest_pid" 2>/dev/null; wait "$guest_pid" 2>/dev/null; }
    guest_pid=
}
trap 'status=$?; guest_stop; (exit $status); service_cleanup' EXIT
