#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An administrator adds a KMIP server (PyKMIP), encrypts a VM with it, runs it, moves it to the native provider and back, loses
# the server and gets it back: the VM is locked meanwhile and says why; a key that was destroyed is told from a server that is away.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/kmip.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
command -v qemu-img >/dev/null || { echo "qemu-img is not installed"; exit 77; }

port=$(kmip_port)
kmip_start "$port"
service_start </dev/null >"$work/reseald.log" 2>&1
vm_provider local
add_vault() {
    reseal provider add vault --server "127.0.0.1:$port" --ca "$pki/ca.crt" --cert "$pki/alice.crt" --key "$pki/alice.key" \
        --timeout 30 >/dev/null
}
add_vault
# The events of this VM from here on; locked TEXT: the last one of a locked VM.
locked() {
    local last
    last=$(grep '"id":"com.vmware.vc.vm.Crypto.VMLocked' run/state/events.jsonl | tail -n 1)
    case $last in *"VMLocked.$1\""*"$2"*'"vm":"web"'*) ;; *) fail "the last event of a locked VM is no $1 with $2: $last" ;; esac
}
unlocked() { grep -c '"id":"com.vmware.vc.vm.Crypto.VMUnlocked"' run/state/events.jsonl || true; }

# Encrypted: the server has the key, with what it is for.
vm_make web 1
vm encrypt --provider vault web
key=$(vm_field web "['key']")
[ "$(vm_field web "['provider']")" = vault ] || fail "not by the server's key"
uuid=$(vm_field web "['uuid']")
kmip_do alice "
text = str(c.get_attributes('$key', ['Application Specific Information'])[1][0])
for t in ('x-Component=Virtual Machine', 'x-Name=web', 'x-Identifier=$uuid', 'x-Vendor=Reseal', 'x-Product='):
    assert t in text, (t, text)"

# It runs.
mkfifo serve.ready
reseal vm serve --socket "$work/serve.sock" --ready-fd 8 web 8>serve.ready >serve.out 2>serve.err </dev/null &
serve=$!
read -r _ <serve.ready || fail "vm serve: $(cat serve.err)"
qemu-img compare -f raw -F raw web.orig/system.img "nbd+unix:///scsi0:0?socket=$work/serve.sock" >said 2>&1 || fail "$(cat said serve.err)"
# Not even losing the server stops what runs.
kmip_kill "$port"
qemu-img compare -f raw -F raw web.orig/data.img "nbd+unix:///scsi0:1?socket=$work/serve.sock" >said 2>&1 || fail "$(cat said serve.err)"
kill -TERM $serve
wait $serve || fail "vm serve: $(cat serve.err)"

# The server is away. What is in memory still opens the VM; a service that forgot it cannot.
vm unlock web
reseal key forget >/dev/null
vm show web >show
grep -q "KeyStateClusterUnreachable" show || fail "show does not say why: $(cat show)"
grep -q "locked: .*key $key of provider vault" show || fail "show: $(cat show)"
[ "$(vm_field web "['locked']")" = True ] || fail "not locked"
[ "$(vm_field web "['reason']")" = KeyStateClusterUnreachable ] || fail "another reason"
before=$(unlocked)
vm_expect 4 'is locked' vm unlock web
locked KMSClusterError KeyStateClusterUnreachable
vm_expect 4 'is locked' vm recrypt --shallow --provider local web
vm_expect 4 'is locked' vm decrypt web
[ "$(unlocked)" = "$before" ] || fail "unlocked without its key"
code=0
reseal vm serve --socket "$work/serve.sock" web </dev/null >out 2>err || code=$?
[ $code = 4 ] || fail "a locked VM was served: $code, $(cat err)"

# And back.
kmip_start "$port"
for _ in $(seq 600); do vm unlock web 2>err && break || sleep 0.1; done
[ "$(unlocked)" -gt "$before" ] || fail "not unlocked: $(cat err)"

# To the native provider, which needs no server, and back.
vm recrypt --shallow --provider local web
kmip_kill "$port"
reseal key forget >/dev/null
vm unlock web
kmip_start "$port"
for _ in $(seq 600); do reseal provider test vault >/dev/null 2>&1 && break || sleep 0.1; done
vm recrypt --shallow --provider vault web
now=$(vm_field web "['key']")
[ "$now" != "$key" ] || fail "the old key again"
[ "$(vm_field web "['disks'][1]['key']")" = "$now" ] || fail "a disk has another key"

# The server goes away in the middle of a move to it: what was begun ends, and says what is still to be done.
vm recrypt --shallow --provider local web
code=0
RESEAL_VM_STOP_AT=commit vm recrypt --shallow --provider vault web 2>/dev/null || code=$?
[ $code = 137 ] || fail "not killed"
kmip_kill "$port"
reseal key forget >/dev/null
vm show web | grep -q "'recrypt --shallow' was interrupted" || fail "show does not tell: $(vm show web)"
code=0
vm recrypt --shallow --provider vault web 2>err || code=$?
[ $code -ne 0 ] && grep -q 'is done, but no safe copy .*reseal vm unlock' err || fail "exit code $code: $(cat err)"
vm_no_leftovers web
vm_expect 4 'is locked' vm unlock web
kmip_start "$port"
for _ in $(seq 600); do vm unlock web 2>err && break || sleep 0.1; done
[ "$(vm_field web "['provider']")" = vault ] || fail "not moved: $(cat err)"

# The provider is removed, and added again under its name.
reseal provider remove vault --force >/dev/null
vm_expect 4 "there is no key provider 'vault'" vm unlock web
locked KMSClusterError KeyStateClusterInvalid
add_vault
vm unlock web

# A disk's key alone is destroyed: the VM is valid, the disk does not open.
vm recrypt --shallow --provider local web
vm decrypt --disk scsi0:1 web
vm encrypt --disk scsi0:1 --provider vault web
disk=$(vm_field web "['disks'][1]['key']")
kmip_do alice "
from kmip import enums
c.revoke(enums.RevocationReasonCode.CESSATION_OF_OPERATION, '$disk')
c.destroy('$disk')"
reseal key forget >/dev/null
[ "$(vm_field web "['locked']")" = False ] || fail "locked for a disk"
vm show web >show
grep -q 'scsi0:1 .*required key was not found' show || fail "show does not name the disk: $(cat show)"
vm_expect 4 'required key was not found' vm unlock web
code=0
reseal vm serve --socket "$work/serve.sock" web </dev/null >out 2>err || code=$?
[ $code = 4 ] && grep -q 'data.img: the disk is encrypted and a required key was not found' err || fail "vm serve: exit code $code: $(cat err)"

# The VM's own key is destroyed at the server.
vm_make gone 1
vm encrypt --provider vault gone
key=$(vm_field gone "['key']")
kmip_do alice "
from kmip import enums
c.revoke(enums.RevocationReasonCode.CESSATION_OF_OPERATION, '$key')"
reseal key forget >/dev/null
vm_expect 4 'is locked' vm unlock gone
grep 'VMLocked.KeyMissingOnKMS' run/state/events.jsonl | grep -q KeyStateNotActiveOrEnabled || fail "no event of a key that is not active"
kmip_do alice "c.destroy('$key')"
vm_expect 4 'is locked' vm unlock gone
grep 'VMLocked.KeyMissingOnKMS' run/state/events.jsonl | grep -q KeyStateMissingInKMS || fail "no event of a destroyed key"
event com.vmware.vc.kms.crypto.SendKeyError.KeyMissingOnKMS "$key"
