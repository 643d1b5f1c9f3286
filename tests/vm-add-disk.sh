#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Disks for VMs that are there: new ones and images, of each format, in a plain VM, in one that a key provider locks and in one
# that a pass phrase locks; served, decrypted, taken out and put back, and in the safe copy.
set -eu
. "$RESEAL_SOURCE/tests/support/vm-serve.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
need qemu-img qemu-io
vm_service </dev/null >reseald.log 2>&1
printf 'correct horse' >phrase

# lines_but_disks FILE: of a plain .vmx
lines_but_disks() { grep -v '^scsi0:[2-9]\|^scsi0:1[0-9]\|^sata\|^nvme' "$1"; }
disk() { printf 'nbd+unix:///%s?socket=%s' "$1" "$socket"; }
node_field() { vm show --json "$1" | python3 -c "import json,sys; print({d['node']: d for d in json.load(sys.stdin)['disks']}['$2'].get('$3'))"; }
is() { [ "$(node_field "$1" "$2" "$3")" = "$4" ] || fail "$2 of $1: $3 is $(node_field "$1" "$2" "$3"), not $4"; }
image() { head -c "$2" /dev/urandom >"$1"; cp "$1" "$1.orig"; }

# A plain VM: disks in the clear, and only when that is said; no other line changes.
vm_make bare 1
image bare/more.img 1M
vm add-disk --plain --size 2M bare
vm add-disk --plain --image bare/more.img --node sata0:1 bare
[ "$(stat -c %s bare/bare_1.img)" = $((2 << 20)) ] || fail "another size"
grep -qx 'scsi0:2.fileName = "bare_1.img"' bare/bare.vmx || fail "no line: $(cat bare/bare.vmx)"
grep -qx 'sata0:1.fileName = "more.img"' bare/bare.vmx && grep -qx 'sata0.present = "TRUE"' bare/bare.vmx || fail "no line: $(cat bare/bare.vmx)"
lines_but_disks bare/bare.vmx | cmp - bare.orig/bare.vmx || fail "other lines changed"
cmp bare/more.img bare/more.img.orig || fail "the image changed"
vm_no_leftovers bare
vm remove-disk --disk bare_1.img bare
vm remove-disk --disk sata0:1 bare
lines_but_disks bare/bare.vmx | cmp - bare.orig/bare.vmx || fail "other lines changed"
grep -q 'scsi0:2' bare/bare.vmx && fail "a line stayed: $(cat bare/bare.vmx)"
[ -e bare/bare_1.img ] || fail "the image went with its line"

# Under a provider's key.
vm_make web 1
vm encrypt web
vm_key=$(vm_field web "['key']")
cp web/web.vmx before.vmx
reseal vm add-disk --safe-dir "$safe" --json --size 1M web >out
python3 -c 'import json; a = json.load(open("out")); assert a["status"] == "done" and a["node"] == "scsi0:2" and a["path"].endswith("/web/web_1.img"), a' || fail "$(cat out)"
vm add-disk --size 1M --format luks1 web
vm add-disk --size 1M --format xts --node nvme0:0 web
vm add-disk --size 1M --format luks2-qcow2 --provider other web
vm add-disk --size 1M --plain --node scsi0:9 web
image outside.img 1M
mkdir web/more
image web/more/inside.img 1M
qemu-img convert -f raw -O qcow2 outside.img web/image.qcow2
image web/clear.img 1M
head -c 1M /dev/urandom >far-flat.vmdk
cp far-flat.vmdk far.orig
printf '# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\n\nRW 2048 FLAT "far-flat.vmdk" 0\n' >far.vmdk
vm add-disk --image outside.img web
vm add-disk --image web/more/inside.img --format luks1 web
vm add-disk --image web/image.qcow2 web
vm add-disk --image web/clear.img --plain web
vm add-disk --image far.vmdk web
vm_no_leftovers web
is web scsi0:2 format luks2
is web scsi0:3 format luks1
is web nvme0:0 format xts
is web scsi0:4 format luks2-qcow2
is web scsi0:9 format raw
is web scsi0:5 format luks2
is web scsi0:6 format luks1
is web scsi0:8 format luks2-qcow2 # 7 is the controller's own
is web scsi0:10 format raw
is web scsi0:11 format vmdk-xts
for node in scsi0:2 scsi0:3 nvme0:0 scsi0:5 scsi0:6 scsi0:8; do is web $node key "$vm_key"; done
is web scsi0:4 provider other
is web scsi0:6 path "$PWD/web/more/inside.img"
# The key of the home, the key safe and the bundle are as they were.
for name in keySafe bundle keyId; do
    [ "$(grep "^encryption.$name" web/web.vmx)" = "$(grep "^encryption.$name" before.vmx)" ] || fail "$name changed"
done
grep -q fileName web/web.vmx && fail "lines in the clear"
cmp web/clear.img web/clear.img.orig || fail "a disk that was to stay in the clear changed"

# A guest can use them.
serve_vm web
qemu-img compare -f raw -F raw outside.img.orig "$(disk scsi0:5)" >said || fail "scsi0:5: $(cat said)"
for node in scsi0:2 scsi0:3 nvme0:0 scsi0:4; do
    [ "$(qemu-img info --output json "$(disk $node)" | python3 -c 'import json,sys; print(json.load(sys.stdin)["virtual-size"])')" = $((1 << 20)) ] ||
        fail "$node has another size"
    qemu-io -f raw -c 'write -P 0x5a 4096 500000' -c 'read -P 0x5a 4096 500000' "$(disk $node)" >said || fail "$node: $(cat said)"
    if grep -q failed said; then fail "$node: $(cat said)"; fi
done
serve_stop
[ "$serve_code" = 0 ] || fail "serve: exit code $serve_code: $(cat "$work/serve.err")"

# Taken out and put back, with the keys that they have; the one that LUKS1 has no room for is the VM's.
for node in scsi0:2 scsi0:3 scsi0:4 nvme0:0; do
    path=$(node_field web $node path)
    vm remove-disk --disk $node web
    vm add-disk --image "$path" --node $node web
done
is web scsi0:3 key "$vm_key"
is web scsi0:4 provider other

# The safe copy knows of them.
: >web/web.vmx
vm repair web
is web scsi0:6 format luks1
reseal events --id '*crypto.Operation' >events
grep -q 'web: add-disk is done: scsi0:5 is .*outside.img, luks2' events || fail "no event: $(tail -n 3 events)"
grep -q 'web: remove-disk is done: scsi0:3 was .*web_2.img, which stays' events || fail "no event: $(tail -n 3 events)"
reseal audit >audit
grep -q 'home.disk' audit || fail "no line in the audit: $(tail -n 3 audit)"

# All of it decrypted: what was written, and what the images were.
vm recrypt --shallow web
vm decrypt web
cmp far-flat.vmdk far.orig || fail "the extent is not what it was"
for f in outside.img web/more/inside.img; do cmp $f $f.orig || fail "$f is not what it was"; done
qemu-img compare -f raw -F qcow2 outside.img.orig web/image.qcow2 >said || fail "qcow2: $(cat said)"
for f in web/web_1.img web/web_2.img web/web_3.img; do
    qemu-io -r -f raw -c 'read -P 0x5a 4096 500000' $f >said || fail "$f: $(cat said)"
    if grep -q failed said; then fail "$f: $(cat said)"; fi
done
lines_but_disks web/web.vmx | cmp - web.orig/web.vmx || fail "other lines changed"

# Locked by a pass phrase: the disk has a key of a provider, and nothing of the home but its lines is written anew.
vm_make shut 1
vm encrypt --passphrase-file phrase shut
cp shut/shut.vmx before.vmx
cp shut/shut.nvram before.nvram
image shut/old.img 1M
vm add-disk --passphrase-file phrase --size 1M shut
vm add-disk --passphrase-file phrase --image shut/old.img --format luks1 shut
vm add-disk --passphrase-file phrase --size 1M --plain shut
[ "$(grep ^encryption.keySafe shut/shut.vmx)" = "$(grep ^encryption.keySafe before.vmx)" ] || fail "another key safe"
cmp shut/shut.nvram before.nvram || fail "the NVRAM was written"
if /usr/bin/python3 -c 'import cryptography' 2>/dev/null; then
    /usr/bin/python3 "$RESEAL_SOURCE/tests/support/open-vmx.py" shut/shut.vmx phrase >lines
    grep -qx 'scsi0:3.fileName = "old.img"' lines || fail "another program sees other lines: $(cat lines)"
fi
vm show --passphrase-file phrase shut >said
grep -q 'scsi0:2 .*luks2.*provider local' said && grep -q 'scsi0:3 .*luks1.*provider local' said && grep -q 'scsi0:4 .*raw' said ||
    fail "show: $(cat said)"
vm remove-disk --passphrase-file phrase --disk scsi0:4 shut
vm decrypt --passphrase-file phrase shut
cmp shut/old.img shut/old.img.orig || fail "another image"
lines_but_disks shut/shut.vmx | cmp - shut.orig/shut.vmx || fail "other lines changed"
echo ok
