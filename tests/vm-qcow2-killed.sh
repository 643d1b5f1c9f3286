#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 of a change of a LUKS over qcow2 disk, at each of its steps and in the middle of its data: the same command goes on.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
command -v qemu-img >/dev/null && command -v qemu-nbd >/dev/null || { echo "qemu-utils is not installed"; exit 77; }
vm_service

same() { qemu-img compare -f qcow2 -F qcow2 "$1" "$2" >"$work/said" 2>&1 || fail "$(cat "$work/said")"; }
sound() { qemu-img check -f qcow2 "$1" >"$work/said" 2>&1 || fail "$(cat "$work/said")"; }
# No child of a killed one has the image any more.
closed() {
    local i
    for i in $(seq 600); do
        qemu-io -f qcow2 -c 'read 0 512' "$1" >/dev/null 2>&1 && return
        sleep 0.1
    done
    fail "$1 stays locked after $i tries"
}

vm_make web 1
rm web/system.img web/data.img
sed -i '/^scsi0:1/d; s/system.img/system.qcow2/' web/web.vmx
head -c 120M /dev/urandom >random
qemu-img convert -f raw -O qcow2 random web/system.qcow2
qemu-img resize -q web/system.qcow2 1G
rm random
rm -rf web.orig
cp -r web web.orig

# kill_amid COMMAND...: when a part of the new image is there.
kill_amid() {
    local pid
    reseal vm "$@" -q --safe-dir "$safe" web 2>/dev/null &
    pid=$!
    while kill -0 $pid 2>/dev/null; do
        [ "$(stat -c %s web/system.qcow2.reseal-new 2>/dev/null || echo 0)" -lt 30000000 ] || break
    done
    kill -9 $pid 2>/dev/null || true
    wait $pid 2>/dev/null || true
}

for command in encrypt 'recrypt --deep' decrypt; do
    tries=0
    # shellcheck disable=SC2086  # words
    until kill_amid $command && [ -e web/web.reseal-intent ]; do
        # This shell had to wait for a processor until all was done.
        [ $((tries += 1)) -lt 6 ] || fail "$command was too fast to be killed"
        case $command in
        encrypt) vm decrypt web ;;
        decrypt) vm encrypt web ;;
        esac
    done
    # shellcheck disable=SC2086
    vm $command web
    vm_no_leftovers web
    closed web/system.qcow2
    sound web/system.qcow2
done
same web/system.qcow2 web.orig/system.qcow2

# At each step.
rm -r web
cp -r web.orig web
qemu-img create -q -f qcow2 web/system.qcow2 100M
qemu-io -f qcow2 -c 'write -P 0x42 9M 300k' web/system.qcow2 >/dev/null
cp web/system.qcow2 web.orig/system.qcow2
vm encrypt web
steps() {
    local n code
    for n in $(seq 40); do
        code=0
        RESEAL_VM_STOP_AT="#$n" vm "$@" web 2>err || code=$?
        [ "$code" != 0 ] || return 0
        [ "$code" = 137 ] || fail "$*, step $n: exit code $code: $(cat err)"
    done
    fail "$*: it never ends"
}
steps recrypt --shallow
steps recrypt --deep
closed web/system.qcow2
sound web/system.qcow2
vm decrypt web
same web/system.qcow2 web.orig/system.qcow2
vm_no_leftovers web
echo ok
