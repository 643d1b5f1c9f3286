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

# An image that two VMs use: its LUKS1 header tells the other one nothing of a new key. The line that names it is copied.
vm encrypt --format luks1 web
cp -r web twin
mv twin/web.vmx twin/twin.vmx
ln -sf ../web/system.img twin/system.img
vm recrypt --shallow web
hint='copy the line NODE.keyId from the .vmx of that one'
[ "$(vm show twin | grep -F "$hint" | sed 's/^ *\([^ ]*\) .*/\1/')" = scsi0:0 ] || fail "show: $(vm show twin)"
vm_expect 4 "$hint" vm recrypt --shallow twin
vm_expect 4 "$hint" timeout 60 reseal vm serve twin
{ grep -v '^scsi0:0.keyId' twin/twin.vmx && grep '^scsi0:0.keyId' web/web.vmx; } >mended
cp mended twin/twin.vmx
vm show twin | grep -F "$hint" && fail "the line does not help"
vm recrypt --shallow twin
vm show web | grep -qF "$hint" || fail "show: $(vm show web)"

# A header that is gone or damaged does not make a disk in the clear of its disk: no command takes it for one.
cp web/data.img kept
head -c 4096 /dev/zero | dd of=web/data.img conv=notrunc status=none
vm_expect 5 'it has no LUKS header' vm decrypt web
vm show web | grep -q 'scsi0:1.*it has no LUKS header' || fail "show: $(vm show web)"
cp kept web/data.img
vm_make hurt 1
vm encrypt hurt
cp hurt/data.img kept
printf 'LUKS\336\255' | dd of=hurt/data.img conv=notrunc status=none
vm_expect 5 'being re-encrypted in place' vm decrypt hurt
head -c 4096 /dev/zero | dd of=hurt/data.img conv=notrunc status=none
vm_expect 5 'cryptsetup repair puts the first back' vm decrypt hurt
vm_expect 5 'cryptsetup repair puts the first back' timeout 60 reseal vm serve hurt
vm_no_leftovers hurt
if command -v cryptsetup >/dev/null; then cryptsetup repair -q hurt/data.img; else cp kept hurt/data.img; fi
vm decrypt hurt
vm_is_original hurt
