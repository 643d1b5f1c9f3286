#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a VM's state forbids: power, snapshots, room, policies, privileges; nothing is changed by what is refused.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
vm_service

vm_make web 1
mkdir web/web.vmx.lck
vm_expect 3 'powered on' vm encrypt web
rmdir web/web.vmx.lck

printf 'snapshot.numSnapshots = "1"\nsnapshot0.uid = "1"\n' >web/web.vmsd
vm_expect 3 'has snapshots' vm encrypt web
rm web/web.vmsd
vm_expect 3 'there is no storage policy "Gold"' vm encrypt --policy Gold web
mkdir policies
printf '{"name": "Plain", "capabilities": []}' >policies/plain.json
printf '{"name": "Fast", "capabilities": [{"namespace": "vmwarevmcrypt", "id": "vmwarevmcrypt@ENCRYPTION"}], "provider": "other", "disk": {"unit": 512, "key-bits": 128}}' >policies/fast.json
vm_expect 3 'does not encrypt' vm encrypt --policy-dir policies --policy Plain web
vm_expect 3 '"Plain"' vm encrypt --policy-dir policies --policy Gold web
vm_expect 4 'nowhere' vm encrypt --provider nowhere web
vm_expect 2 'no disk' vm encrypt --disk scsi9:9 web
vm_no_leftovers web
vm_is_original web

# More room than there is.
mkdir huge
printf '.encoding = "UTF-8"\ndisplayName = "huge"\nscsi0:0.fileName = "huge.img"\n' >huge/huge.vmx
truncate -s 900T huge/huge.img 2>/dev/null || truncate -s 15T huge/huge.img
vm_expect 6 'are free' vm encrypt huge
[ ! -e huge/huge.reseal-intent ] || fail "it began without room"

vm encrypt --policy-dir policies --policy Fast web
[ "$(vm_field web "['provider']")" = other ] || fail "the policy's provider was not taken"
[ "$(vm_field web "['disks'][0]['unit']")" = 512 ] || fail "the policy's unit was not taken"
[ "$(vm_field web "['policy']")" = Fast ] || fail "the policy is not shown"

# Online: a chain is fine, a tree is not; deep and decrypt want no snapshot and no power.
printf 'snapshot.numSnapshots = "2"\nsnapshot0.uid = "1"\nsnapshot1.uid = "2"\nsnapshot1.parent = "1"\n' >web/web.vmsd
vm recrypt --shallow web
vm_expect 3 'has snapshots' vm recrypt --deep web
vm_expect 3 'has snapshots' vm decrypt web
printf 'snapshot.numSnapshots = "3"\nsnapshot0.uid = "1"\nsnapshot1.uid = "2"\nsnapshot1.parent = "1"\nsnapshot2.uid = "3"\nsnapshot2.parent = "1"\n' >web/web.vmsd
vm_expect 3 'tree of snapshots' vm recrypt --shallow web
[ "$(vm_field web "['snapshots']")" = tree ] || fail "show sees no tree"
rm web/web.vmsd
mkdir web/web.vmx.lck
vm recrypt --shallow web
[ "$(vm_field web "['power']")" = on ] || fail "show does not see the power"
vm_expect 3 'powered on' vm recrypt --deep web
vm_expect 3 'powered on' vm decrypt web
rmdir web/web.vmx.lck

# A vTPM encrypts the home, whatever the policy, and keeps it so.
vm_make tpm 1
vm encrypt --vtpm tpm
cmp tpm/system.img tpm.orig/system.img || fail "the disk was encrypted without being asked"
[ "$(vm_field tpm "['encrypted']")" = True ] || fail "a vTPM without an encrypted home"
vm_expect 3 'has a vTPM' vm decrypt tpm
vm decrypt --remove-vtpm tpm
vm_is_original tpm
# One that is added later leaves the VM its key and its policy; files that a hypervisor made since are encrypted by that key too.
vm encrypt --policy-dir policies --policy Fast tpm
key=$(vm_field tpm "['key']")
vm encrypt --vtpm tpm
head -c 5000 /dev/urandom >tpm/tpm.vtpm
cp tpm/tpm.vtpm tpm.orig/tpm.vtpm
[ "$(vm_field tpm "['vtpm_state']")" = "not encrypted" ] || fail "show does not see what is in the clear"
vm encrypt tpm
[ "$(vm_field tpm "['provider']+v['policy']+v['key']+v['vtpm_state']+v['nvram']")" = "otherFast${key}encryptedencrypted" ] ||
    fail "another key or policy, or files in the clear: $(vm show tpm)"
[ "$(vm_field tpm "['disks'][1]['key']")" = "$key" ] || fail "keys are mixed"
cp tpm.orig/tpm.nvram tpm/tpm.nvram
vm encrypt --home tpm
[ "$(vm_field tpm "['key']+v['nvram']")" = "${key}encrypted" ] || fail "NVRAM in the clear, or another key"
vm_expect 3 'nothing to do' vm encrypt tpm
vm decrypt --remove-vtpm tpm
grep -v '^reseal.policy' tpm/tpm.vmx | cmp - tpm.orig/tpm.vmx || fail "the .vmx did not come back"
cmp tpm/tpm.nvram tpm.orig/tpm.nvram || fail "NVRAM did not come back"
vm create --policy-dir policies --policy Plain --vtpm --disk 1M born
[ "$(vm_field born "['encrypted']")" = True ] || fail "a vTPM without an encrypted home"
[ "$(vm_field born "['disks'][0]['encrypted']")" = False ] || fail "the policy was not heeded"
vm_expect 3 'there already' vm create --disk 1M born
vm create --disk 8M --disk 1M fresh
[ "$(vm_field fresh "['disks'][1]['encrypted']")" = True ] || fail "a new disk is not encrypted"
cryptsetup isLuks --type luks2 fresh/fresh.img || fail "no LUKS2"
vm recrypt --deep fresh
vm decrypt fresh
[ "$(stat -c %s fresh/fresh.img)" = $((8 << 20)) ] || fail "a new disk has another size"
[ "$(stat -c %b fresh/fresh.img)" -lt 8192 ] || fail "what was a hole has blocks: $(stat fresh/fresh.img)"
grep -q NoDiskSpace "$work"/run/state/events.jsonl || fail "no event of missing room"
grep -q 'crypto.Operation' "$work"/run/state/events.jsonl || fail "no event of an operation"

# Decrypted by a change of the policy: chosen disks first, then the home. It stands in the .vmx, and counts for what is added.
rm -rf web
vm_make web 1
vm encrypt web
vm_expect 3 '"Fast" encrypts' vm decrypt --policy-dir policies --policy Fast web
vm_expect 3 'there is no storage policy "Gold"' vm decrypt --policy-dir policies --policy Gold web
vm_no_leftovers web
vm decrypt --policy-dir policies --policy Plain --disk scsi0:1 web
[ "$(vm_field web "['disks'][1]['encrypted']")" = False ] || fail "the disk is encrypted"
[ "$(vm_field web "['disks'][0]['encrypted']")" = True ] || fail "another disk was decrypted"
vm decrypt --policy-dir policies --policy Plain web
[ "$(vm_field web "['encrypted']")" = False ] || fail "the home is encrypted"
[ "$(vm_field web "['policy']")" = Plain ] || fail "another policy"
[ "$(grep -c '^reseal.policy = "Plain"' web/web.vmx)" = 1 ] || fail "the policy is not in the .vmx"
grep -v '^reseal.policy' web/web.vmx | cmp - web.orig/web.vmx || fail "the .vmx did not come back"
