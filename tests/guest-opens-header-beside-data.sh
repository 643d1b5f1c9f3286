#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Disks whose header is a file of its own (xts, VMDK), in a guest that knows nothing of Reseal: stock cryptsetup opens data and
# header with dm-crypt, and what it writes Reseal reads.
set -u
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/token-plugin.sh"
. "$RESEAL_SOURCE/tests/support/guest.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
guest_needs
for p in mkfs.ext4 debugfs; do command -v $p >/dev/null || { echo "no $p"; exit 77; }; done
token_plugin_needs
vm_service

# Three disks with a file system: a raw one, and extents of descriptors that begin 2 MiB, and 63 sectors, into their files.
mkdir files web
head -c 1500000 /dev/urandom >files/data
sum=$(sha256sum files/data | cut -d' ' -f1)
mkfs.ext4 -q -b 4096 -d files web/system.img 12M >/dev/null || fail "mkfs.ext4"
# extent NAME SECTOR
extent() {
    head -c $(($2 * 512)) /dev/urandom >web/$1-flat.vmdk
    cat web/system.img >>web/$1-flat.vmdk
    printf '# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW %d FLAT "%s-flat.vmdk" %d\n' \
        $((12 * 2048)) "$1" "$2" >web/$1.vmdk
}
extent other 4096
extent odd 63
printf '.encoding = "UTF-8"\ndisplayName = "web"\nscsi0:0.fileName = "system.img"\nscsi0:1.fileName = "other.vmdk"\nscsi0:2.fileName = "odd.vmdk"\n' >web/web.vmx
cp -r web web.orig
vm encrypt --format xts web || fail "encrypt"
[ "$(stat -c %s web/system.img)" = "$(stat -c %s web.orig/system.img)" ] || fail "the size changed"

# Nothing has to be mended, the header says where the data is, and its slot opens.
for disk in system.img:system.img:0 other.vmdk:other-flat.vmdk:2097152 odd.vmdk:odd-flat.vmdk:0; do
    IFS=: read -r name data start <<<"$disk"
    cryptsetup luksDump --dump-json-metadata web/$name.reseal-header 2>err |
        python3 -c 'import json,sys; s=json.load(sys.stdin)["segments"]["0"]; print(s["offset"], s["size"])' >said
    [ "$(cat said)" = "$start dynamic" ] || fail "$name: the header says '$(cat said)'"
    grep -qi 'repair\|warning\|invalid' err && fail "cryptsetup is not content with the header of $name: $(cat err)"
    with_plugin cryptsetup open --test-passphrase --token-only --header web/$name.reseal-header web/$data || fail "$name does not open"
done

# Slots for a guest that has no key service.
printf 'a pass phrase' >phrase
for h in system.img other.vmdk odd.vmdk; do
    cp web/$h.reseal-header $h.header
    with_plugin cryptsetup luksAddKey -q --token-type reseal --token-only --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $h.header phrase ||
        fail "luksAddKey"
done

# shellcheck disable=SC2016  # for the guest
guest_build initrd '
see() {
    cryptsetup open --disable-locks --disable-external-tokens --header "$2" --key-file /phrase "$1" disk || exit 1
    cryptsetup status disk | grep -E "cipher|sector size|offset" | while read -r line; do echo "guest: $line"; done
    mount -t ext4 /dev/mapper/disk /mnt || exit 2
    echo "guest: data $(sha256sum </mnt/data)"
    head -c 700000 /dev/urandom >/mnt/answer
    echo "guest: answer $(sha256sum </mnt/answer)"
    umount /mnt && cryptsetup close disk || exit 3
}
see /dev/vda /dev/vdb
see /dev/vdc /dev/vdd
losetup -o $((63 * 512)) /dev/loop0 /dev/vde
see /dev/loop0 /dev/vdf
' 'virtio_pci virtio_blk loop dm_crypt xts aesni_intel algif_skcipher af_alg ext4' "$work/phrase=phrase" "$(command -v cryptsetup)=bin/cryptsetup"
drives=()
for f in web/system.img system.img.header web/other-flat.vmdk other.vmdk.header web/odd-flat.vmdk odd.vmdk.header; do
    drives+=(-drive "file=$work/$f,format=raw,if=virtio")
done
guest_start initrd serial "${drives[@]}"
guest_wait
[ "$(grep -c "^guest: data $sum" serial.text)" = 3 ] || fail "the guest read something else: $(grep guest: serial.text)"
[ "$(grep -c 'aes-xts-plain64' serial.text)" = 3 ] || fail "the guest used another cipher: $(grep guest: serial.text)"
mapfile -t answers < <(sed -n 's/^guest: answer \([0-9a-f]*\).*/\1/p' serial.text)
[ ${#answers[@]} = 3 ] || fail "the guest wrote nothing"

vm decrypt web || fail "decrypt"
tail -c +$((2 * 1024 * 1024 + 1)) web/other-flat.vmdk >other.img
tail -c +$((63 * 512 + 1)) web/odd-flat.vmdk >odd.img
cmp -n $((2 * 1024 * 1024)) web/other-flat.vmdk web.orig/other-flat.vmdk || fail "what lies before the extent was changed"
n=0
for image in web/system.img other.img odd.img; do
    debugfs -R "dump /answer $work/answer$n" "$image" >/dev/null 2>&1
    [ "$(sha256sum <answer$n | cut -d' ' -f1)" = "${answers[$n]}" ] || fail "what the guest wrote to $image reads otherwise"
    n=$((n + 1))
done
