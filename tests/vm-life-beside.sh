#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The life of disks whose header lies beside them: ciphertext from byte 0, and a VMDK with a flat extent.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
vm_service

vm_make web
# Ciphertext from byte 0, header beside it; and a VMDK with a flat extent.
vm encrypt --format xts web
[ "$(stat -c %s web/system.img)" = "$(stat -c %s web.orig/system.img)" ] || fail "the size changed"
[ -e web/system.img.reseal-header ] || fail "no header beside it"
vm recrypt --shallow web
vm recrypt --deep web
vm decrypt web
vm_is_original web
[ ! -e web/system.img.reseal-header ] || fail "the header stayed"

mv web/system.img web/system-flat.vmdk
printf '# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\n\nRW %d FLAT "system-flat.vmdk" 0\n\nddb.adapterType = "lsilogic"\n' \
    $(($(stat -c %s web/system-flat.vmdk) / 512)) >web/system.vmdk
cp web/system.vmdk system.vmdk.orig
sed -i s/system.img/system.vmdk/ web/web.vmx
cp web/web.vmx web.orig/web.vmx
vm encrypt web
grep -q '^encryptionKeys="vmware:key/fqid/' web/system.vmdk || fail "the descriptor names no key"
grep -q '^keyID=' web/system.vmdk || fail "the descriptor has no keyID"
[ "$(vm_field web "['disks'][0]['format']")" = vmdk-xts ] || fail "not vmdk-xts"
vm recrypt --shallow web
vm recrypt --deep web
vm decrypt web
cmp web/system-flat.vmdk web.orig/system.img || fail "the extent did not come back"
cmp web/system.vmdk system.vmdk.orig || fail "the descriptor did not come back"
cmp web/web.vmx web.orig/web.vmx || fail "the .vmx did not come back"
