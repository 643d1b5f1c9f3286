#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A VM whose home a pass phrase locks: made, looked at, opened by a program that knows only the public format, repaired, given
# another phrase, decrypted.
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
# Who was killed when all was done runs it again.
vm_expect 3 'nothing to do: web has the new pass phrase already' vm recrypt --shallow --passphrase-file phrase --new-passphrase-file other-phrase web
vm_expect 3 'nothing to do' vm recrypt --shallow --new-passphrase-file other-phrase web
open_vmx web/web.vmx other-phrase | cmp - lines || fail "other lines"
vm_expect 4 'wrong pass phrase' vm unlock --passphrase-file phrase web
vm recrypt --deep --passphrase-file other-phrase web
open_vmx web/web.vmx other-phrase | cmp - lines || fail "other lines"

# Decrypted, everything is as it was.
vm_expect 4 'wrong pass phrase' vm decrypt --passphrase-file phrase web
vm_no_leftovers web
vm decrypt --passphrase-file other-phrase web
vm_is_original web
