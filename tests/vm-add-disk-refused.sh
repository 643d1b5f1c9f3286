#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What no VM gets as a disk, each with its own line; a disk is added to an encrypted VM by who has Cryptographer.AddDisk. What is
# refused changes nothing.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
vm_service --state-dir "$work/keys" </dev/null >reseald.log 2>&1
vm_make bare 1
vm_make web 1
vm encrypt web
printf 'a phrase' >phrase
head -c 1M /dev/urandom >image.img
find bare web image.img -type f ! -name '*.reseal-lock' -exec sha256sum {} + | sort >before

# The command line.
vm_expect 2 'say which' vm add-disk web
vm_expect 2 'say which' vm add-disk --size 1M --image image.img web
vm_expect 2 'in whole sectors' vm add-disk --size 1000 web
vm_expect 2 'in whole sectors' vm add-disk --size 0 web
vm_expect 2 'in whole sectors' vm add-disk --size much web
for node in scsi0:7 scsi4:0 scsi0:16 scsi0:01 sata0:30 nvme0:15 ide0:2 usb0:1 scsi0 'scsi0:1.x'; do
    vm_expect 2 'no disk can be there' vm add-disk --size 1M --node "$node" web
done
vm_expect 2 'in the clear' vm add-disk --size 1M --plain --format luks2 web
vm_expect 2 'in the clear' vm add-disk --size 1M --plain --provider other web
vm_expect 2 'no option of vm remove-disk' vm remove-disk --size 1M web
vm_expect 2 'one --disk is wanted' vm remove-disk web
vm_expect 2 "no disk 'scsi0:5'" vm remove-disk --disk scsi0:5 web

# The VM.
vm_expect 3 'an encrypted disk needs an encrypted VM' vm add-disk --size 1M bare
vm_expect 3 'an encrypted disk needs an encrypted VM' vm add-disk --image image.img bare
vm_expect 3 'scsi0:1 of web is taken by' vm add-disk --size 1M --node scsi0:1 web
vm_expect 3 'there is no storage policy "Gold"' vm add-disk --size 1M --policy Gold web
mkdir policies
printf '{"name": "Plain", "capabilities": []}' >policies/plain.json
vm_expect 3 'does not encrypt: name another --policy, or --plain' vm add-disk --size 1M --policy-dir policies --policy Plain web
vm_expect 4 'nowhere' vm add-disk --size 1M --provider nowhere web
mkdir web/web.vmx.lck
vm_expect 3 'powered on' vm add-disk --size 1M web
vm_expect 3 'powered on' vm remove-disk --disk scsi0:1 web
rmdir web/web.vmx.lck
printf 'snapshot.numSnapshots = "1"\nsnapshot0.uid = "1"\n' >web/web.vmsd
vm_expect 3 'has snapshots' vm add-disk --size 1M web
vm_expect 3 'has snapshots' vm remove-disk --disk scsi0:1 web
rm web/web.vmsd

# The image.
vm_expect 6 'No such file' vm add-disk --image nothing.img web
vm_expect 3 'nothing to do: ' vm add-disk --image web/data.img web
vm_expect 3 'already, the disk scsi0:1' vm add-disk --image web/../web/data.img web
vm_expect 3 'another file of the VM' vm add-disk --image web/web.nvram web
vm_expect 3 'another file of the VM' vm add-disk --image web/web.vmx web
ln -s image.img link.img
vm_expect 3 'symbolic link' vm add-disk --image link.img web
vm_expect 3 'is no file' vm add-disk --image policies web
mkfifo pipe
vm_expect 3 'is no file' vm add-disk --image pipe web
: >empty.img
vm_expect 3 'is empty' vm add-disk --image empty.img web
ln image.img second.img
vm_expect 3 'another name' vm add-disk --image image.img web
rm second.img
cp image.img "$(printf 'n\377.img')"
vm_expect 3 'no UTF-8 text' vm add-disk --image "$(printf 'n\377.img')" web
cp image.img cd.iso
vm_expect 3 'image of a CD' vm add-disk --image cd.iso web
printf 'more than a sector' >odd.img
vm_expect 5 'whole number of sectors' vm add-disk --image odd.img web
printf '# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=11111111\nparentFileNameHint="base.vmdk"\ncreateType="monolithicFlat"\n\nRW 2048 FLAT "link-flat.vmdk" 0\n' >link.vmdk
truncate -s 1M link-flat.vmdk
vm_expect 3 'chain of snapshots' vm add-disk --image link.vmdk web
sed -i '/parent/d' link.vmdk
ln link-flat.vmdk second-flat.vmdk
vm_expect 3 'link-flat.vmdk has another name' vm add-disk --image link.vmdk web
rm second-flat.vmdk
for magic in KDMV COWD; do
    printf $magic >sparse.vmdk
    truncate -s 64K sparse.vmdk
    vm_expect 5 'sparse VMDK: only one flat extent is supported: make a copy that has one, by qemu-img convert' vm add-disk --image sparse.vmdk web
done
sed 's/FLAT/SPARSE/' link.vmdk >sparse.vmdk
vm_expect 5 'kind SPARSE: only one flat extent' vm add-disk --image sparse.vmdk web
sed 's/^\(RW .*\)/\1\n\1/' link.vmdk >sparse.vmdk
vm_expect 5 'several extents: only one flat extent' vm add-disk --image sparse.vmdk web
if command -v qemu-img >/dev/null && command -v cryptsetup >/dev/null; then
    qemu-img create -q -f qcow2 --object secret,id=s,data=x -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 own.qcow2 1M
    vm_expect 5 'own.qcow2' vm add-disk --image own.qcow2 web
    # One that its owner's pass phrase opens, and no key of a provider.
    truncate -s 20M owner.img
    cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file phrase owner.img
    vm_expect 4 'its key cannot be used: no key slot of it belongs to a key provider' vm add-disk --image owner.img web
fi
vm_make there 1
vm encrypt there
vm_expect 3 'stays so: leave --plain out' vm add-disk --plain --image there/data.img web
vm_expect 3 'stays as it is: --format' vm add-disk --format luks1 --image there/data.img web
vm_expect 3 'reseal vm encrypt first' vm add-disk --image there/data.img bare

# A lock that does not open.
vm_make shut 1
vm encrypt --passphrase-file phrase shut
printf 'no phrase' >wrong
vm_expect 4 'wrong pass phrase' vm add-disk --passphrase-file wrong --size 1M shut
setsid -w reseal vm add-disk -q --safe-dir "$safe" --size 1M shut </dev/null 2>err && fail "added without the phrase"
grep -q -- '--passphrase-file' err || fail "it does not say how: $(cat err)"

# Another command of the kind waits for the one that was interrupted.
code=0
RESEAL_VM_STOP_AT=home vm add-disk --size 1M web 2>/dev/null || code=$?
[ $code = 137 ] || fail "not killed"
vm_expect 3 "an interrupted 'add-disk --size 1048576' of web comes first" vm add-disk --size 2M web
vm_expect 3 "an interrupted 'add-disk --size 1048576'" vm remove-disk --disk scsi0:1 web
vm_expect 3 "comes first" vm add-disk --size 1M --plain web
vm show web | grep -q "'add-disk --size 1048576' was interrupted: run it again" || fail "show: $(vm show web)"
vm repair --abandon web
for v in bare web there shut; do vm_no_leftovers $v; done
find bare web image.img -type f ! -name '*.reseal-lock' -exec sha256sum {} + | sort | diff before - || fail "something that was refused changed a file"
service_stop

# Privileges. A disk in the clear for a plain VM wants none.
me=$(id -u)
allow() {
    local list
    list=$(printf '"Cryptographer.%s",' "$@")
    printf '{"version": 1, "tenants": {"t": {"users": [%d]}}, "privileges": [{"to": "user:%d", "allow": [%s]}],
 "pairs": [{"for": "tenant:t", "from": "*", "to": "*", "grants": ["plain-out"]}]}\n' "$me" "$me" "${list%,}" >policy.json
}
with() {
    service_stop
    allow "$@"
    service_start --policy "$work/policy.json" --state-dir "$work/keys" </dev/null >reseald.log 2>&1
}
with Access Encrypt EncryptNew Recrypt Decrypt RegisterVM ManageKeys ManageKeyServers ReadKeyServersInfo
vm_provider mine
vm_make ours 1
vm encrypt --provider mine ours
vm_expect 3 'Cryptographer.AddDisk' vm add-disk --size 1M ours
vm_expect 3 'Cryptographer.AddDisk' vm add-disk --size 1M --plain ours
vm_expect 3 'Cryptographer.AddDisk' vm add-disk --image image.img ours
vm_expect 3 'Cryptographer.AddDisk' vm remove-disk --disk scsi0:1 ours
vm_expect 3 'Cryptographer.AddDisk' vm add-disk --passphrase-file phrase --size 1M shut
vm add-disk --size 1M --plain bare
vm_no_leftovers ours
with AddDisk RegisterVM
vm_expect 3 'Cryptographer.EncryptNew' vm add-disk --size 1M ours
vm_expect 3 'Cryptographer.Encrypt' vm add-disk --image image.img ours
vm_no_leftovers ours
[ ! -e ours/ours_1.img ] || fail "a disk that was refused is there"
vm add-disk --size 1M --plain ours
vm remove-disk --disk scsi0:2 ours
with AddDisk Encrypt EncryptNew
vm_expect 3 'Cryptographer.RegisterVM' vm add-disk --size 1M ours
with AddDisk EncryptNew RegisterVM
vm add-disk --size 1M ours
[ "$(vm_field ours "['disks'][2]['format']")" = luks2 ] || fail "no disk was added"
echo ok
