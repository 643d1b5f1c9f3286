#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `reseal vm serve VM`: its disks under a key provider's key, of every format; the VM counts as running meanwhile, its key
# can be changed under it, and a service that lost everything opens it again.
set -eu
. "$RESEAL_SOURCE/tests/support/vm-serve.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
need qemu-img qemu-io cryptsetup
vm_service

disk() { printf 'nbd+unix:///%s?socket=%s' "$1" "$socket"; }

same() {
    qemu-img compare -f raw -F raw "$1" "$(disk "$2")" >"$work/said" 2>&1 || fail "$2: $(cat "$work/said" "$work/serve.err")"
}

for format in luks2 luks1 xts; do
    vm_make web
    vm encrypt --format $format web
    serve_vm web
    same web.orig/system.img scsi0:0
    same web.orig/data.img scsi0:1
    for image in "web.orig/data.img" "$(disk scsi0:1)"; do
        qemu-io -f raw -c 'write -P 0x3c 5000 300000' -c flush "$image" >"$work/said" || fail "$format: $(cat "$work/said")"
    done
    vm_expect 3 '' vm decrypt web
    vm recrypt --shallow web

    # Without any program that held the key, under the key that it has now.
    old=$(pgrep -P "$service_pid" -x reseald-work)
    pkill -KILL -P "$service_pid" -x reseal-keyd
    pkill -KILL -P "$service_pid" -x reseald-work
    same web.orig/data.img scsi0:1
    [ "$(pgrep -P "$service_pid" -x reseald-work)" != "$old" ] || fail "the service was not restarted"
    grep -q 'key was opened again' "$work/serve.err" || fail "$format: the key was still there: $(cat "$work/serve.err")"
    serve_stop
    [ "$serve_code" = 0 ] || fail "$format: exit code $serve_code: $(cat "$work/serve.err")"
    vm decrypt web
    cmp web/data.img web.orig/data.img || fail "$format: what was written is not there"
    rm -r web
done

# A disk alone, by the token in its header.
vm_make web
vm encrypt web
serve_disk web/system.img
same web.orig/system.img system.img
serve_stop

# Two VMs at a time, at sockets of their own that nobody has to name.
served=()
for name in web db; do
    [ -d $name ] || vm create --disk 1M $name
    rm -f "$work/ready.$name"
    mkfifo "$work/ready.$name"
    timeout -k 5 120 reseal vm serve --ready-fd 8 $name 8>"$work/ready.$name" >"$work/out.$name" 2>&1 </dev/null &
    served+=($!)
    read -r _ <"$work/ready.$name" || fail "$name is not served: $(cat "$work/out.$name")"
    qemu-img info -f raw "nbd+unix:///scsi0:0?socket=$RESEAL_RUNTIME_DIR/vm-$name.sock" >"$work/said" 2>&1 ||
        fail "$name is not at vm-$name.sock: $(cat "$work/said" "$work/out.$name")"
done
kill "${served[@]}"
wait "${served[@]}"
refused() {
    local code=0
    timeout -k 5 60 reseal vm serve --socket "$socket" "$@" >"$work/out" 2>"$work/err" </dev/null || code=$?
    [ "$code" = "$want" ] || fail "$*: exit code $code: $(cat "$work/err")"
    [ "$(wc -l <"$work/err")" = 1 ] || fail "$*: not one line: $(cat "$work/err")"
}

# The other VM in this one's folder: who may use this one's disks does not get those. The place of safe copies is the service's
# own or the user's; root's is the machine's where the service's would not last.
if [ "$(id -u)" != 0 ] || [ "$(stat -f -c %T "$RESEAL_RUNTIME_DIR")" != tmpfs ]; then
    reseal vm unlock -q web
    cp web/web.vmx "$work/own.vmx"
    cp db/* web/
    mv web/db.vmx web/web.vmx
    want=5 refused web
    grep -q 'web.vmx is of another VM' "$work/err" || fail "it does not say that it is another VM: $(cat "$work/err")"
    mv "$work/own.vmx" web/web.vmx
fi
rm -r db

# Another service does not have the key: the VM is locked.
service_stop
rm -rf "$RESEAL_RUNTIME_DIR" "$XDG_STATE_HOME"
service_start
want=4 refused web
want=4 refused --disk web/system.img
echo ok
