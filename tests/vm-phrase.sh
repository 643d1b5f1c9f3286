#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A VM whose home a pass phrase locks: made, looked at, opened by a program that knows only the public format, given another
# phrase, moved to a key provider and back where the policy allows it, decrypted.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
open_vmx() { /usr/bin/python3 "$RESEAL_SOURCE/tests/support/open-vmx.py" "$@"; }
/usr/bin/python3 -c 'import cryptography' 2>/dev/null || { echo "python3-cryptography is not installed"; exit 77; }
vm_service </dev/null >reseald.log 2>&1
printf 'correct horse' >phrase
printf 'battery staple' >other-phrase
vm_make web 1

# Encrypted: the home, and nothing else.
vm_expect 2 'alone' vm encrypt --passphrase-file phrase --disk scsi0:0 web
vm_expect 2 'alone' vm encrypt --passphrase-file phrase --provider local web
vm encrypt --passphrase-file phrase web
vm_no_leftovers web
cmp web/system.img web.orig/system.img || fail "a disk was encrypted"
grep -q 'nvram' web/web.vmx && fail "lines in the clear"
head -c 21 web/web.nvram | grep -q DataTransformEnvelope || fail "the NVRAM is in the clear"
[ "$(stat -c %a web/web.vmx)" = 600 ] || fail "the .vmx is for everybody"

# Another program opens it.
open_vmx web/web.vmx phrase >lines 2>open.err
[ ! -s open.err ] || fail "$(cat open.err)"
grep -q 'scsi0:0.fileName = "system.img"' lines || fail "other lines: $(cat lines)"
if open_vmx web/web.vmx other-phrase >/dev/null 2>&1; then fail "another phrase opens it"; fi

# show asks nobody; what wants the phrase says how to give it.
vm show web | grep -q 'by a pass phrase: locked: .*--passphrase-file' || fail "show: $(vm show web)"
vm show --passphrase-file phrase web | grep -q 'scsi0:1' || fail "show with the phrase: $(vm show --passphrase-file phrase web)"
setsid -w reseal vm unlock -q --safe-dir "$safe" web </dev/null 2>err && fail "unlocked without a phrase"
grep -q -- '--passphrase-file' err || fail "it does not say how: $(cat err)"
vm_expect 4 'wrong pass phrase' vm unlock --passphrase-file other-phrase web
vm_expect 4 'is empty' vm unlock --passphrase-file /dev/null web
vm unlock --passphrase-file phrase web
vm_expect 3 'nothing to do' vm encrypt --passphrase-file phrase web
vm_expect 2 '--new-passphrase-file' vm recrypt --shallow --passphrase-file phrase web

# The safe copy is good for it too.
: >web/web.vmx
vm_expect 4 'wrong pass phrase' vm repair --passphrase-file other-phrase web
vm repair --passphrase-file phrase web
open_vmx web/web.vmx phrase | cmp - lines || fail "another .vmx came back"

# Another phrase; the old one opens nothing any more.
vm recrypt --shallow --passphrase-file phrase --new-passphrase-file other-phrase web
open_vmx web/web.vmx other-phrase | cmp - lines || fail "other lines"
vm_expect 4 'wrong pass phrase' vm unlock --passphrase-file phrase web
vm recrypt --deep --passphrase-file other-phrase web
open_vmx web/web.vmx other-phrase | cmp - lines || fail "other lines"

# A disk gets a provider's key; then the home moves there, and back.
vm encrypt --disk scsi0:0 --provider other --passphrase-file other-phrase web
vm show --json --passphrase-file other-phrase web >show
python3 -c 'import json; d = json.load(open("show"))["disks"]; assert d[0]["provider"] == "other" and not d[1]["encrypted"], d' ||
    fail "not the disk that was chosen: $(cat show)"
vm recrypt --shallow --passphrase-file other-phrase --provider local web
vm_no_leftovers web
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
