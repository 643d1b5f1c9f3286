#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 between any two changes that a shallow recrypt of qcow2 disks makes, while QEMU has them open: the same command goes on.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
. "$RESEAL_SOURCE/tests/support/killed.sh"
command -v qemu-img >/dev/null && command -v qemu-nbd >/dev/null || { echo "qemu-utils is not installed"; exit 77; }
killed_change() {
    rm web/system.img web/data.img
    for name in system data; do
        qemu-img create -q -f qcow2 web/$name.qcow2 4M
        qemu-io -f qcow2 -c 'write -P 0x42 1M 300k' web/$name.qcow2 >/dev/null
    done
    sed -i 's/system.img/system.qcow2/; s/data.img/data.qcow2/' web/web.vmx
}
sound() {
    vm show --json web >show
    python3 -c "
import json
v = json.load(open('show'))
assert all(d['encrypted'] and d['key'] == v['key'] for d in v['disks']), v" || fail "$what: keys are mixed: $(cat show)"
    for name in system data; do
        qemu-img check -q -f qcow2 web/$name.qcow2 >said 2>&1 || fail "$what: $(cat said)"
    done
    vm decrypt web
    for name in system data; do
        qemu-img compare -q -f qcow2 -F qcow2 plain/web/$name.qcow2 web/$name.qcow2 || fail "$what: $name is another"
    done
}
killed_service
killed_at_changes "${KILLED_POINTS:-5}" sealed sound recrypt --shallow
