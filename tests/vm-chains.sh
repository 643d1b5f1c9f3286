#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Chains of VMDK descriptors: a shallow recrypt changes the key of all links together, also when it is killed; links of
# several keys are told.
set -eu
. "$RESEAL_SOURCE/tests/support/vm-serve.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
. "$RESEAL_SOURCE/tests/support/vmdk.sh"
need qemu-img
vm_service
machine web system
machine one base
machine two middle
link one base web
link two middle web
parent web middle base.vmdk
parent web system middle.vmdk

# Three links with three keys.
[ "$(vm_field web "['snapshots']")" = chain ] || fail "show sees no chain"
[ "$(vm_field web "['disks'][2]['node']")" = scsi0:0^2 ] || fail "show does not list the links"
[ "$(vm_field web "['disks'][0]['mixed_keys']")" = True ] || fail "show does not say that keys are mixed"
vm show web | grep -q 'more than one key' || fail "show does not say so"
[ "$(mixed_told)" = 0 ] || fail "told before anything was done"
serve_vm web
serve_stop
[ "$(mixed_told)" = 1 ] || fail "serve does not tell of mixed keys"
vm_expect 3 'has snapshots' vm recrypt --deep web
vm_expect 3 'has snapshots' vm decrypt web

# links_have_one_key
links_have_one_key() {
    local key i
    key=$(vm_field web "['key']")
    for i in 0 1 2; do
        [ "$(vm_field web "['disks'][$i]['key']")" = "$key" ] || fail "link $i has another key than its VM"
        [ "$(vm_field web "['disks'][$i]['available']")" = True ] || fail "link $i has no key"
    done
    [ "$(grep -hc "^keyID=\"$key\"" web/*[a-z].vmdk | grep -cx 1)" = 3 ] || fail "a descriptor names another key"
    vm show web | grep -q 'more than one key' && fail "still mixed"
    vm_no_leftovers web
}
data_is_there() {
    for d in system middle base; do
        serve_disk web/$d.vmdk
        qemu-img compare -f raw -F raw web.orig/$d-flat.vmdk "nbd+unix:///$d.vmdk?socket=$socket" >said 2>&1 || fail "$d: $(cat said)"
        serve_stop
    done
}

sums=$(sha256sum web/*-flat.vmdk)
vm recrypt --shallow web
[ "$(mixed_told)" = 2 ] || fail "recrypt does not tell of mixed keys"
links_have_one_key
data_is_there
vm recrypt --shallow --provider other web
[ "$(mixed_told)" = 2 ] || fail "told of keys that are not mixed"
links_have_one_key
[ "$(vm_field web "['disks'][2]['provider']")" = other ] || fail "a link was not moved"

# Killed at every step, run again: all links or none.
n=1
while :; do
    code=0
    RESEAL_VM_STOP_AT="#$n" vm recrypt --shallow web 2>err || code=$?
    [ $code = 137 ] || break
    n=$((n + 1))
    [ $n -lt 60 ] || fail "no end"
done
[ $code = 0 ] || fail "exit code $code: $(cat err)"
[ $n -gt 8 ] || fail "only $n kills"
links_have_one_key
data_is_there
[ "$(sha256sum web/*-flat.vmdk)" = "$sums" ] || fail "a shallow recrypt changed data"
[ "$(mixed_told)" = 2 ] || fail "keys were mixed in between"

# A link that is gone keeps nobody from the disk itself: its extent holds all of it.
parent web base gone.vmdk
serve_vm web
serve_stop
