#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A VM whose home a pass phrase locks: its disks get keys of a provider, it runs, it moves to a key provider and back; killed in
# between it goes on with the pass phrase that it began with.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
open_vmx() { /usr/bin/python3 "$RESEAL_SOURCE/tests/support/open-vmx.py" "$@"; }
/usr/bin/python3 -c 'import cryptography' 2>/dev/null || { echo "python3-cryptography is not installed"; exit 77; }
vm_service </dev/null >reseald.log 2>&1
printf 'correct horse' >phrase
printf 'battery staple' >other-phrase
vm_make web 1
vm encrypt --passphrase-file other-phrase web

# A disk gets a provider's key; then the home moves there, and back.
vm encrypt --disk scsi0:0 --provider other --passphrase-file other-phrase web
vm show --json --passphrase-file other-phrase web >show
python3 -c 'import json; d = json.load(open("show"))["disks"]; assert d[0]["provider"] == "other" and not d[1]["encrypted"], d' ||
    fail "not the disk that was chosen: $(cat show)"
# It runs from there: the phrase opens the home, the provider's key the disk.
mkfifo serve.ready
reseal vm serve --socket "$work/serve.sock" --ready-fd 8 --passphrase-file other-phrase web 8>serve.ready >serve.out 2>serve.err </dev/null &
serve=$!
read -r _ <serve.ready || fail "vm serve: $(cat serve.err)"
if command -v qemu-img >/dev/null; then
    qemu-img compare -f raw -F raw web.orig/system.img "nbd+unix:///scsi0:0?socket=$work/serve.sock" >said 2>&1 || fail "$(cat said serve.err)"
fi
kill -TERM $serve
wait $serve || fail "vm serve: $(cat serve.err)"
vm recrypt --shallow --passphrase-file other-phrase --provider local web
vm_no_leftovers web
code=0
reseal vm serve --socket "$work/serve.sock" --passphrase-file phrase web </dev/null >out 2>err || code=$?
[ $code = 2 ] && grep -q 'no pass phrase locks web' err || fail "vm serve takes a phrase for nothing: $code, $(cat err)"
[ "$(vm_field web "['provider']")" = local ] || fail "the home did not move"
[ "$(vm_field web "['disks'][0]['provider']")" = local ] || fail "the disk did not move"
vm unlock web
vm_expect 3 'locked by key provider local' vm encrypt --passphrase-file phrase web
vm recrypt --shallow --new-passphrase-file phrase web
open_vmx web/web.vmx phrase | grep -q 'system.img' || fail "not back to a pass phrase"
grep -q '"operation":"home.rewrap".*"kek:local/' run/state/audit.jsonl || fail "no audit line of the key that was left"
vm_expect 4 'wrong pass phrase' vm decrypt --passphrase-file other-phrase web
vm_no_leftovers web
vm decrypt --passphrase-file phrase web
vm_is_original web

# A vTPM's state is locked with the home.
vm_make tpm 1
printf 'vtpm.present = "TRUE"\nvtpm.fileName = "tpm.vtpm"\n' >>tpm/tpm.vmx
head -c 5000 /dev/urandom >tpm/tpm.vtpm
cp tpm/tpm.vtpm tpm/tpm.vmx tpm.orig
vm encrypt --passphrase-file phrase tpm
head -c 21 tpm/tpm.vtpm | grep -q DataTransformEnvelope || fail "the vTPM state is in the clear"
vm recrypt --shallow --passphrase-file phrase --provider local tpm
vm recrypt --shallow --new-passphrase-file other-phrase tpm
vm_expect 3 'remove-vtpm' vm decrypt --passphrase-file other-phrase tpm
vm decrypt --remove-vtpm --passphrase-file other-phrase tpm
[ ! -e tpm/tpm.vtpm ] || fail "the vTPM stayed"
cmp tpm/tpm.nvram tpm.orig/tpm.nvram || fail "another NVRAM"

# Killed in between: only the phrase that it began with goes on.
vm_make kill 1
code=0
RESEAL_VM_STOP_AT=home vm encrypt --passphrase-file phrase kill 2>/dev/null || code=$?
[ $code = 137 ] || fail "not killed"
vm_expect 4 'not the pass phrase that the interrupted command began with' vm encrypt --passphrase-file other-phrase kill
vm encrypt --passphrase-file phrase kill
vm_no_leftovers kill
code=0
RESEAL_VM_STOP_AT=commit vm recrypt --shallow --passphrase-file phrase --new-passphrase-file other-phrase kill 2>/dev/null || code=$?
[ $code = 137 ] || fail "not killed"
vm show kill | grep -q 'was interrupted' || fail "show does not tell: $(vm show kill)"
vm recrypt --shallow --passphrase-file phrase --new-passphrase-file other-phrase kill
vm unlock --passphrase-file other-phrase kill
vm decrypt --passphrase-file other-phrase kill
vm_is_original kill
