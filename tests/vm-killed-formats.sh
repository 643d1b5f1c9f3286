#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 before changes of files, where disks have their header beside them: a VMDK with a flat extent, and ciphertext from byte 0.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
. "$RESEAL_SOURCE/tests/support/killed.sh"
killed_change() {
    mv web/system.img web/system-flat.vmdk
    printf '# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\n\nRW %d FLAT "system-flat.vmdk" 0\n\nddb.adapterType = "lsilogic"\n' \
        $(($(stat -c %s web/system-flat.vmdk) / 512)) >web/system.vmdk
    sed -i s/system.img/system.vmdk/ web/web.vmx
}
killed_service --format xts
count=${KILLED_POINTS:-5}
killed_at_changes "$count" plain killed_sealed encrypt --format xts
killed_at_changes "$count" sealed killed_sealed recrypt --shallow
killed_at_changes "$count" sealed killed_sealed recrypt --deep
killed_at_changes "$count" sealed killed_plain decrypt
