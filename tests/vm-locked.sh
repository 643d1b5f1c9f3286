#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A VM whose key is missing is locked and says why; one whose disk's key is missing is valid; both unlock when it returns.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
vm_service
vm_make web 1
vm encrypt --provider other --disk scsi0:1 --home web
vm encrypt --provider local --disk scsi0:0 web
[ "$(vm_field web "['disks'][0]['provider']")" = local ] || fail "the disk has no key of its own"
[ "$(vm_field web "['provider']")" = other ] || fail "the home lost its provider"

# The disk's key alone.
reseal provider remove local --force >/dev/null
[ "$(vm_field web "['locked']")" = False ] || fail "locked for a disk"
vm show web | grep -q 'required key was not found' || fail "show does not name the disk: $(vm show web)"
vm_expect 4 'required key was not found' vm unlock web
vm_expect 4 'required key was not found' vm decrypt web
vm_no_leftovers web
cmp -s web/data.img web.orig/data.img && fail "a part was decrypted"

# The VM's key: the home cannot be read, and what is shown says which key of which provider.
reseal provider remove other --force >/dev/null
key=$(vm_field web "['key']")
[ "$(vm_field web "['locked']")" = True ] || fail "not locked"
vm show web | grep -q 'locked' || fail "show: $(vm show web)"
vm_expect 4 'of provider other' vm unlock web
vm_expect 4 "$key" vm unlock web
vm_expect 4 'is locked' vm recrypt --shallow web
vm_expect 4 'is locked' vm decrypt web
grep -q 'VMLocked' "$work"/run/state/events.jsonl || fail "no event of a locked VM"

# Both return, under the same names.
for p in other local; do
    reseal provider import $p "$work/$p.p12" --password-file "$work/backup-password" >/dev/null
done
vm unlock web
grep -q 'VMUnlocked' "$work"/run/state/events.jsonl || fail "no event of an unlocked VM"
vm decrypt web
vm_is_original web

# Without a service a VM can be looked at.
vm encrypt web
service_stop
vm show web | grep -q 'encrypted' || fail "show needs a service"
vm_expect 7 'service' vm unlock web
