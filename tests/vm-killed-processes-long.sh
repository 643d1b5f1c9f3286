#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 of each process of the service, and of the qemu-nbd that a command started, at every change that vm encrypt, recrypt and
# decrypt make: they end, or say so in one line and go on when they are run again.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
. "$RESEAL_SOURCE/tests/support/killed.sh"
command -v qemu-img >/dev/null && command -v qemu-nbd >/dev/null || { echo "qemu-utils is not installed"; exit 77; }
killed_change() { # a disk in a qcow2 image beside the raw one
    rm web/data.img
    qemu-img create -q -f qcow2 web/data.qcow2 4M
    qemu-io -f qcow2 -c 'write -P 0x42 1M 300k' web/data.qcow2 >/dev/null
    sed -i 's/data.img/data.qcow2/' web/web.vmx
}
plain() {
    cmp plain/web/system.img web/system.img || fail "$what: the raw disk is another"
    qemu-img compare -q -f qcow2 -F qcow2 plain/web/data.qcow2 web/data.qcow2 || fail "$what: the qcow2 disk is another"
}
sealed() {
    qemu-img check -q -f qcow2 web/data.qcow2 >said 2>&1 || fail "$what: $(cat said)"
    vm decrypt web
    plain
}
killed_service
count=${KILLED_POINTS:-0}
for process in reseald reseald-work reseal-keyd nursery qemu-nbd; do
    killed_service_at "$count" $process plain sealed encrypt
    killed_service_at "$count" $process sealed sealed recrypt --shallow
    killed_service_at "$count" $process sealed sealed recrypt --deep
    killed_service_at "$count" $process sealed plain decrypt
done
