#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A VM is encrypted, shown, rekeyed, moved to another provider, decrypted; the bytes are what they were.
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
