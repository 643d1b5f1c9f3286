#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The life of a VM: encrypted, shown, rekeyed, moved to another provider, decrypted; the bytes are what they were.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
vm_service

vm_make web
vm encrypt web
vm_no_leftovers web
grep -q 'encryption.keySafe' web/web.vmx || fail "no key safe"
grep -q 'encryption.bundle' web/web.vmx || fail "no bundle"
grep -q 'scsi0' web/web.vmx && fail "the .vmx is not encrypted"
head -c 21 web/web.nvram | grep -q DataTransformEnvelope || fail "NVRAM is not encrypted"
cmp -s web/system.img web.orig/system.img && fail "the disk is not encrypted"
[ "$(vm_field web "['encrypted']")" = True ] || fail "show does not say so"
[ "$(vm_field web "['provider']")" = local ] || fail "not under the default provider"
[ "$(vm_field web "['policy']")" = "VM Encryption Policy" ] || fail "the policy is not shown"
key=$(vm_field web "['key']")
[ "$(vm_field web "['disks'][0]['key']")" = "$key" ] || fail "disk and home have two keys"
[ "$(vm_field web "['disks'][1]['format']")" = luks2 ] || fail "not LUKS2"
cryptsetup isLuks --type luks2 web/system.img || fail "cryptsetup does not see LUKS2"

# Shallow: other headers and another key, the same data.
data() { tail -c +$((16 * 1024 * 1024 + 1)) "$1" | sha256sum; }
before=$(data web/system.img)
vm recrypt --shallow web
[ "$(data web/system.img)" = "$before" ] || fail "shallow changed the data"
[ "$(vm_field web "['key']")" != "$key" ] || fail "the key is the same"
[ "$(vm_field web "['disks'][1]['key']")" = "$(vm_field web "['key']")" ] || fail "a disk kept the old key"
vm_no_leftovers web

# To another provider, and deep there: other data.
vm recrypt --shallow --provider other web
[ "$(vm_field web "['provider']")" = other ] || fail "not moved"
[ "$(vm_field web "['disks'][0]['provider']")" = other ] || fail "the disk was not moved"
vm recrypt --deep web
[ "$(data web/system.img)" != "$before" ] || fail "deep did not change the data"
[ "$(vm_field web "['provider']")" = other ] || fail "deep changed the provider"
vm recrypt --deep --provider local web
vm unlock web
vm decrypt web
vm_is_original web
vm_no_leftovers web

# In parts: a disk first is refused, then with its home, then the other; and back.
vm_expect 3 'needs an encrypted VM' vm encrypt --disk scsi0:1 web
vm encrypt --disk scsi0:1 --home web
[ "$(vm_field web "['disks'][0]['encrypted']")" = False ] || fail "the other disk was encrypted too"
vm_expect 3 'nothing to do' vm encrypt --disk data.img web
vm encrypt --disk system.img --format luks1 web
[ "$(vm_field web "['disks'][0]['format']")" = luks1 ] || fail "not LUKS1"
vm recrypt --shallow web
vm_expect 3 'needs an encrypted VM' vm decrypt --home web
vm decrypt --disk scsi0:0 web
cmp web/system.img web.orig/system.img || fail "LUKS1 did not come back"
vm decrypt web
vm_is_original web

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
