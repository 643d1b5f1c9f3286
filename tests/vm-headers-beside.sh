#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Disks with ciphertext from their first byte and the header in a file beside: as they are made, as they once were made, extents that
# begin anywhere in their file; and a header taken for a disk.
set -eu
. "$RESEAL_SOURCE/tests/support/vm-serve.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
need qemu-img cryptsetup
vm_service

said() { cryptsetup luksDump --dump-json-metadata "$1" | python3 -c 'import json,sys; print(json.load(sys.stdin)["segments"]["0"]["offset"])'; }
same() {
    qemu-img compare -f raw -F raw "$1" "nbd+unix:///$2?socket=$socket" >said 2>&1 || fail "$2: $(cat said serve.err)"
}
serve_and_compare() {
    serve_vm web
    same web.orig/system.img scsi0:0
    serve_stop
}

# Those of today say that the data begins at byte 0.
vm_make web 1
vm encrypt --format xts web
[ "$(said web/system.img.reseal-header)" = 0 ] || fail "a new header says $(said web/system.img.reseal-header)"
vm create --format xts --disk 1M born
[ "$(said born/born.img.reseal-header)" = 0 ] || fail "a header of create says $(said born/born.img.reseal-header)"
vm decrypt web

# Those of old say 16 MiB, where nothing is: they are as good.
vm encrypt web
for f in system data; do
    head -c 16M web/$f.img >web/$f.img.reseal-header
    tail -c +$((16 * 1024 * 1024 + 1)) web/$f.img >web/$f.new
    mv web/$f.new web/$f.img
done
[ "$(said web/system.img.reseal-header)" = 16777216 ] || fail "no header as of old"
serve_and_compare
vm recrypt --shallow web
serve_and_compare
cp -r web old
vm recrypt --deep web
[ "$(said web/system.img.reseal-header)" = 0 ] || fail "deep recrypt kept the old header"
serve_and_compare
vm decrypt web
vm_is_original web
rm -r web
mv old web
vm decrypt web
vm_is_original web

# A header that says another place is of another disk, or its data was moved.
truncate -s 8M other
cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file pass --header elsewhere --offset 8192 other
vm encrypt --format xts web
cp web/system.img.reseal-header right
cp elsewhere web/system.img.reseal-header
vm_expect 5 'the data begins at byte 4194304, but it begins at 0' vm recrypt --deep web
cp right web/system.img.reseal-header

# The header alone is no disk.
vm_expect 5 'data is in another file' reseal vm serve --socket "$socket" --disk web/system.img.reseal-header
vm_expect 5 'data is in another file' reseal transcode -q luks:web/system.img.reseal-header plain:out
[ ! -e out ] || fail "a header was decrypted as data"
vm decrypt web
vm_is_original web

# An extent that begins at a sector of its file, even or odd; what lies around it stays.
for first in 0 63 4096; do
    rm -rf web web.orig
    mkdir web
    head -c 1M /dev/urandom >system
    { head -c $((first * 512)) /dev/urandom; cat system; head -c 3000 /dev/urandom; } >web/system-flat.vmdk
    printf '# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 2048 FLAT "system-flat.vmdk" %d\n' $first >web/system.vmdk
    printf 'displayName = "web"\nscsi0:0.fileName = "system.vmdk"\n' >web/web.vmx
    cp -r web web.orig
    cp system web.orig/system.img
    vm encrypt web
    [ "$(stat -c %s web/system-flat.vmdk)" = "$(stat -c %s web.orig/system-flat.vmdk)" ] || fail "$first: the size changed"
    [ $first = 0 ] || cmp -n $((first * 512)) web/system-flat.vmdk web.orig/system-flat.vmdk || fail "$first: what lies before was changed"
    cmp <(tail -c 3000 web/system-flat.vmdk) <(tail -c 3000 web.orig/system-flat.vmdk) || fail "$first: what lies behind was changed"
    wanted=$([ $first = 4096 ] && echo 2097152 || echo 0)
    [ "$(said web/system.vmdk.reseal-header)" = "$wanted" ] || fail "$first: the header says $(said web/system.vmdk.reseal-header)"
    serve_and_compare
    vm recrypt --shallow web
    vm recrypt --deep web
    serve_and_compare
    vm decrypt web
    for f in system.vmdk system-flat.vmdk; do cmp web/$f web.orig/$f || fail "$first: $f did not come back"; done
done
