#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Parts of a VM that are no plain files of their own: links, devices, one file under two names, extents of other folders. What would be
# left behind in the clear, or lost, is refused before anything is changed.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
. "$RESEAL_SOURCE/tests/support/vmdk.sh"
vm_service

state() { find web elsewhere \( -type f -o -type l \) ! -name '*.reseal-lock' -exec ls -l --time-style=+ {} + -exec sha256sum {} + | sort; }
# refused CODE WORDS COMMAND...
refused() {
    local before
    before=$(state)
    vm_expect "$@"
    [ "$(state)" = "$before" ] || fail "'$2', and something was changed"
    vm_no_leftovers web
}

# A disk, the NVRAM: links to what would stay as it is.
mkdir elsewhere
vm_make web 1
mv web/system.img elsewhere/
ln -s ../elsewhere/system.img web/system.img
refused 3 'system.img is a symbolic link' vm encrypt web
rm web/system.img
mv elsewhere/system.img web/
mv web/web.nvram elsewhere/
ln -s ../elsewhere/web.nvram web/web.nvram
refused 3 'web.nvram is a symbolic link' vm encrypt web
vm encrypt --disk scsi0:0 --home web 2>err && fail "the home was encrypted, its NVRAM is still in the clear"
rm web/web.nvram
mv elsewhere/web.nvram web/

# A header changes where it is, behind a link too; data does not.
vm encrypt web
mv web/system.img elsewhere/
ln -s ../elsewhere/system.img web/system.img
vm recrypt --shallow web
[ "$(vm_field web "['disks'][0]['key']")" = "$(vm_field web "['key']")" ] || fail "the header behind the link has the old key"
# Something else under the name of a header that waits to be written, and of the disk that it is for: neither is taken for it.
head -c 8192 /dev/urandom >elsewhere/secret
staged=web/system.img.reseal-header.reseal-new code=0
rm web/system.img
mv elsewhere/system.img web/
RESEAL_VM_STOP_AT=commit vm recrypt --shallow web 2>err || code=$?
[ "$code" = 137 ] || fail "it was not killed at the commit: exit code $code: $(cat err)"
mv $staged elsewhere/header
ln -s ../elsewhere/secret $staged
cp web/system.img image
vm_expect 6 'cannot change' vm recrypt --shallow web
cmp web/system.img image || fail "what a link leads to was written into the image"
rm $staged
mv elsewhere/header $staged
mv web/system.img elsewhere/
cp elsewhere/secret web/system.img
vm_expect 6 'cannot change' vm recrypt --shallow web
cmp web/system.img elsewhere/secret || fail "a header was written into another file"
rm web/system.img
ln -s ../elsewhere/system.img web/system.img
vm recrypt --shallow web
refused 3 'system.img is a symbolic link' vm recrypt --deep web
refused 3 'system.img is a symbolic link' vm decrypt web
rm web/system.img
mv elsewhere/system.img web/
vm decrypt web
vm_is_original web

# A header beside its data, which a link would leave as it was, under the old key.
vm encrypt --format xts web
mv web/data.img.reseal-header elsewhere/
ln -s ../elsewhere/data.img.reseal-header web/
refused 3 'data.img.reseal-header is a symbolic link' vm recrypt --shallow web
rm web/data.img.reseal-header
mv elsewhere/data.img.reseal-header web/
vm decrypt web
vm_is_original web

# One file under two names.
cp web/web.vmx vmx
sed -i s/data.img/system.img/ web/web.vmx
refused 3 'two parts of web are one file' vm encrypt web
ln web/system.img web/hard.img
sed 's/data.img/hard.img/' vmx >web/web.vmx
refused 3 'two parts of web are one file' vm encrypt web
rm web/hard.img
sed 's/web.nvram/data.img/' vmx >web/web.vmx
refused 3 'two parts of web are one file' vm encrypt web

# No file, and one that is of nobody's VM.
sed 's|data.img|/dev/null|' vmx >web/web.vmx
refused 3 '/dev/null is no file' vm encrypt web
vmdk elsewhere other
sed 's|data.img|data.vmdk|' vmx >web/web.vmx
for name in ../elsewhere/other-flat.vmdk "$work/elsewhere/other-flat.vmdk"; do
    printf '# Disk DescriptorFile\nRW 2048 FLAT "%s" 0\n' "$name" >web/data.vmdk
    refused 5 'is in another folder' vm encrypt web
done
ln -s ../elsewhere/other-flat.vmdk web/flat
printf '# Disk DescriptorFile\nRW 2048 FLAT "flat" 0\n' >web/data.vmdk
refused 5 'flat is a symbolic link' vm encrypt web
vm show web | grep -q 'flat is a symbolic link' || fail "show does not say so"
rm web/flat
# A descriptor of another folder is a disk there, with its extent beside it.
ln -s ../elsewhere/other.vmdk web/link.vmdk
sed 's|data.img|link.vmdk|' vmx >web/web.vmx
cp elsewhere/other-flat.vmdk web/
refused 3 'link.vmdk is a symbolic link' vm encrypt web
rm web/link.vmdk web/other-flat.vmdk web/data.vmdk
cp elsewhere/other-flat.vmdk other.orig
sed 's|data.img|../elsewhere/other.vmdk|' vmx >web/web.vmx
vm encrypt web
[ -e elsewhere/other.vmdk.reseal-header ] || fail "no header beside the descriptor"
cmp -s elsewhere/other-flat.vmdk other.orig && fail "a disk of another folder was not encrypted"
vm decrypt web
cmp elsewhere/other-flat.vmdk other.orig

# A disk of an IDE controller changes its key only while the VM is off.
sed 's|scsi0:1|ide0:1|' vmx >web/web.vmx
vm encrypt web
mkdir web/web.vmx.lck
refused 3 'has an IDE disk (ide0:1)' vm recrypt --shallow web
rmdir web/web.vmx.lck
vm recrypt --shallow web
