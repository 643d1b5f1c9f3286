#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# VMs that other programs locked with a pass phrase: published samples and each known MAC are opened, moved to a key provider,
# decrypted. Disks that only the other program can read stay as they are.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
open_vmx() { /usr/bin/python3 "$RESEAL_SOURCE/tests/support/open-vmx.py" "$@"; }
/usr/bin/python3 -c 'import cryptography' 2>/dev/null || { echo "python3-cryptography is not installed"; exit 77; }
vm_service </dev/null >reseald.log 2>&1
cat >lines <<'L'
displayName = "imported"
memsize = "512"
nvram = "vm.nvram"
scsi0.present = "TRUE"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "disk.vmdk"
L

# import_vm PHRASE-FILE: the VM in vm/ is opened, moved to a provider and decrypted.
import_vm() {
    printf 'KDMV an encrypted sparse extent of another program' >vm/disk.vmdk
    head -c 9000 /dev/urandom >vm/vm.nvram
    cp vm/disk.vmdk vm/vm.nvram .
    vm show vm | grep -q 'by a pass phrase: locked' || fail "show: $(vm show vm)"
    vm show --passphrase-file "$1" vm | grep -q 'scsi0:0' || fail "show: $(vm show --passphrase-file "$1" vm)"
    printf 'wrong' >wrong
    vm_expect 4 'wrong pass phrase' vm unlock --passphrase-file wrong vm
    vm unlock --passphrase-file "$1" vm
    cp -r vm before
    vm decrypt --passphrase-file "$1" vm
    cmp vm/vm.vmx lines || fail "other lines: $(cat vm/vm.vmx)"
    rm -rf vm "$safe"
    mv before vm
    vm recrypt --shallow --passphrase-file "$1" --provider other vm
    vm_no_leftovers vm
    [ "$(vm_field vm "['provider']")" = other ] || fail "it did not move"
    head -c 21 vm/vm.nvram | grep -q DataTransformEnvelope || fail "the NVRAM is in the clear"
    vm unlock vm
    vm decrypt --home vm
    cmp vm/vm.vmx lines || fail "other lines: $(cat vm/vm.vmx)"
    cmp vm/vm.nvram vm.nvram || fail "another NVRAM"
    cmp vm/disk.vmdk disk.vmdk || fail "the disk was touched"
    rm -rf vm "$safe"
}

# The sample of the README of pyvmx-cracker: key safe as published, with lines of ours under the key in it.
published=$(sed -n '/define PUBLISHED_SAFE/,/))"/p' "$RESEAL_SOURCE/tests/support/published.h" | sed -n 's/^ *"\(.*\)".*/\1/p' | tr -d '\n')
sed -n 's/^#define PUBLISHED_PHRASE "\(.*\)"/\1/p' "$RESEAL_SOURCE/tests/support/published.h" | tr -d '\n' >published-phrase
mkdir vm
data=$(open_vmx --data "$published" lines published-phrase)
printf '.encoding = "UTF-8"\ndisplayName = "imported"\nencryption.keySafe = "%s"\nencryption.data = "%s"\n' "$published" "$data" >vm/vm.vmx
import_vm published-phrase

printf 'pass' >phrase
for mac in HMAC-SHA-1 HMAC-SHA-1-128 HMAC-SHA-256; do
    mkdir vm
    open_vmx --seal lines phrase $mac >vm/vm.vmx
    import_vm phrase
done
