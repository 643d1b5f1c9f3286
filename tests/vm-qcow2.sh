#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Disks that are LUKS over qcow2: the life of one, from plain to encrypted and back, sparse all the way; and what is
# refused.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
command -v qemu-img >/dev/null && command -v qemu-nbd >/dev/null || { echo "qemu-utils is not installed"; exit 77; }
vm_service

image() { qemu-img "$@" >"$work/said" 2>&1 || fail "qemu-img $*: $(cat "$work/said")"; }
io() {
    local to=$1 args=() c
    shift
    for c; do args+=(-c "$c"); done
    qemu-io -f qcow2 "${args[@]}" "$to" >"$work/said" 2>&1 || fail "qemu-io $*: $(cat "$work/said")"
}
same() { image compare -f qcow2 -F qcow2 "$1" "$2"; }
sound() { image check -f qcow2 "$1"; }
kib() { du -k "$1" | cut -f1; }
# look, then the fields of a disk.
look() { vm show --json web >show.json; }
field() { python3 -c "import json; print(json.load(open('show.json'))['disks'][$1]['$2'])"; }

# A VM with a sparse qcow2 disk of 64 MiB and a sector, of which little is used, and a raw one.
qcow2_vm() {
    rm -rf web
    vm_make web
    rm web/system.img
    image create -f qcow2 "$@" web/system.qcow2 67109376
    io web/system.qcow2 'write -P 0x5a 0 70000' 'write -P 0x5a 1M 70000' 'write -P 0x5a 33M 70000' 'write -P 0x17 67107840 1536'
    sed -i s/system.img/system.qcow2/ web/web.vmx
    rm -rf web.orig
    cp -r --sparse=always web web.orig
}

life() {
    local format=$1
    look
    [ "$(field 0 format)" = qcow2 ] && [ "$(field 0 size)" = 67109376 ] || fail "a plain one is not shown"
    vm encrypt ${2:+--format "$2"} web
    look
    [ "$(field 0 format)" = "$format" ] || fail "it became $(field 0 format), not $format"
    [ "$(field 0 size)" = 67109376 ] || fail "the size of its data is $(field 0 size)"
    [ "$(field 0 provider)" = local ] || fail "its key is not of the default provider"
    [ "$(field 0 key)" = "$(field 1 key)" ] || fail "the key is not that of the other disk"
    [ "$(field 0 available)" = True ] || fail "its key is not available"
    [ -n "$(field 0 uuid)" ] || fail "no UUID"
    sound web/system.qcow2
    [ "$(kib web/system.qcow2)" -lt 25000 ] || fail "it is not sparse any more: $(kib web/system.qcow2) KiB"
    qemu-img compare -f qcow2 -F qcow2 web/system.qcow2 web.orig/system.qcow2 >"$work/said" 2>&1 && fail "not encrypted"
    image convert -f qcow2 -O raw web/system.qcow2 cipher.img
    cryptsetup isLuks --type "${format%-qcow2}" cipher.img || fail "cryptsetup does not see a LUKS container in it"
    grep -qabF ZZZZZZZZZZZZZZZZ web/system.qcow2 && fail "plain text in the image"

    local key
    key=$(field 0 key)
    vm recrypt --shallow web
    look
    [ "$(field 0 key)" != "$key" ] || fail "shallow: the key is the same"
    sound web/system.qcow2
    image convert -f qcow2 -O raw web/system.qcow2 shallow.img
    cmp -s <(tail -c 64M cipher.img) <(tail -c 64M shallow.img) || fail "shallow changed the data"
    vm recrypt --deep --provider other web
    look
    [ "$(field 0 provider)" = other ] || fail "deep: not moved"
    image convert -f qcow2 -O raw web/system.qcow2 deep.img
    cmp -s <(tail -c 64M cipher.img) <(tail -c 64M deep.img) && fail "deep did not change the data"
    [ "$(kib web/system.qcow2)" -lt 25000 ] || fail "deep: it is not sparse any more"
    rm -f cipher.img shallow.img deep.img
    vm decrypt web
    look
    [ "$(field 0 format)" = qcow2 ] || fail "decrypt made a $(field 0 format)"
    same web/system.qcow2 web.orig/system.qcow2
    sound web/system.qcow2
    [ "$(kib web/system.qcow2)" -lt 8000 ] || fail "decrypt: it is not sparse any more"
    vm_no_leftovers web
}

qcow2_vm
life luks2-qcow2
qcow2_vm -o cluster_size=4k
life luks1-qcow2 luks1

# A new one.
vm create --disk 100M --format luks2-qcow2 new
[ "$(vm_field new "['disks'][0]['format']")" = luks2-qcow2 ] || fail "create made no luks2-qcow2"
[ "$(vm_field new "['disks'][0]['size']")" = 104857600 ] || fail "create: another size"
[ "$(kib new/new.qcow2)" -lt 25000 ] || fail "create: it is not sparse"
vm recrypt --shallow new

for format in luks1 luks1-qcow2; do
    vm create --disk 10M --format $format new-$format
    [ "$(vm_field new-$format "['disks'][0]['format']")" = $format ] || fail "create made no $format"
    vm decrypt new-$format
done

# Without QEMU's program the line says what to install.
touch begun
vm_expect 5 'Debian: qemu-utils' env PATH="$RESEAL_BUILD/bin" "$(command -v reseal)" vm recrypt --shallow --safe-dir "$safe" new
touch ended
# Those of other tests beside this one are gone in a moment.
stayed() { find /tmp -maxdepth 1 -name 'reseal-qcow2-*' -user "$(id -un)" -newer begun ! -newer ended; }
for _ in $(seq 600); do [ -n "$(stayed)" ] || break; sleep 0.1; done
[ -z "$(stayed)" ] || fail "a folder of a socket stayed: $(stayed)"

# What is refused, with one line each, and loses nothing.
refused() {
    vm_expect "$1" "$2" vm encrypt web
    vm_no_leftovers web
    vm show web >show.out || fail "it is not even shown"
}
qcow2_vm
image snapshot -c one web/system.qcow2
refused 3 'snapshots'
qcow2_vm
image create -f qcow2 -b system.qcow2 -F qcow2 web/child.qcow2
sed -i s/system.qcow2/child.qcow2/ web/web.vmx
refused 5 'backing file'
qcow2_vm -o data_file="$work/elsewhere"
refused 5 'another file'
qcow2_vm -o extended_l2=on
refused 5 'extensions'
qcow2_vm
printf '\002' | dd of=web/system.qcow2 bs=1 seek=79 conv=notrunc 2>/dev/null
refused 5 'corrupt'
printf '\001' | dd of=web/system.qcow2 bs=1 seek=79 conv=notrunc 2>/dev/null
refused 5 'not closed in order'
printf '\000' | dd of=web/system.qcow2 bs=1 seek=79 conv=notrunc 2>/dev/null
printf '\377' | dd of=web/system.qcow2 bs=1 seek=40 conv=notrunc 2>/dev/null
refused 5 'QEMU refuses it'
head -c 50 web.orig/system.qcow2 >web/system.qcow2
refused 5 'damaged'
qcow2_vm
rm web/system.qcow2
image create -f qcow2 --object secret,id=s,data=abc -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 web/system.qcow2 10M
look
[ "$(field 0 format)" = qcow2-luks ] || fail "QEMU's own encryption is not recognised"
qcow2_vm
vm_expect 3 'qcow2 image' vm encrypt --format xts web
vm_expect 3 'no qcow2 image' vm encrypt --disk data.img --home --format luks2-qcow2 web

# Another program has it open.
vm encrypt web
qemu-nbd --format=qcow2 --socket="$work/hold.sock" --persistent web/system.qcow2 </dev/null >"$work/nbd.log" 2>&1 &
nbd=$!
until nbdinfo "nbd+unix:///?socket=$work/hold.sock" >/dev/null 2>"$work/said"; do
    kill -0 $nbd 2>/dev/null || fail "qemu-nbd ended: $(cat "$work/nbd.log")"
    sleep 0.1
done
look
[ "$(field 0 format)" = luks2-qcow2 ] || fail "it is not shown while it is used"
vm_expect 3 'in use' vm recrypt --shallow web
vm_no_leftovers web
vm_expect 3 'in use' vm decrypt web
kill $nbd
wait $nbd || true
vm recrypt --shallow web
vm decrypt web
same web/system.qcow2 web.orig/system.qcow2
vm decrypt new
echo ok
