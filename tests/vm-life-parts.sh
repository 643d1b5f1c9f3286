#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A VM is encrypted and decrypted in parts: a disk first, then its home, then the other; and back.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
vm_service

vm_make web
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
