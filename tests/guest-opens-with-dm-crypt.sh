#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A disk that Reseal encrypted, in a guest that knows nothing of Reseal: stock cryptsetup and the kernel's dm-crypt open it
# with the pass phrase, read what is in it, and what they write Reseal reads.
set -u
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/guest.sh"
guest_needs
for p in cryptsetup mkfs.ext4 debugfs; do command -v $p >/dev/null || { echo "no $p"; exit 77; }; done
service_start --state-dir "$work/state"

mkdir "$work/files"
head -c 1500000 /dev/urandom >"$work/files/data"
sum=$(sha256sum "$work/files/data" | cut -d' ' -f1)
mkfs.ext4 -q -b 4096 -d "$work/files" "$work/plain" 24M >/dev/null || fail "mkfs.ext4"
printf 'a pass phrase' >"$work/phrase" && chmod 600 "$work/phrase"
# Emulated, the usual derivation takes minutes.
reseal transcode -q --pbkdf pbkdf2 --pbkdf-ms 10 --destination-passphrase-file "$work/phrase" plain:"$work/plain" luks:"$work/disk" ||
    fail "transcode"

# shellcheck disable=SC2016  # for the guest
guest_build "$work/initrd" '
printf "wrong" >/tmp/wrong
cryptsetup open --disable-locks --key-file /tmp/wrong /dev/vda disk 2>/dev/null && echo "guest: wrong pass phrase opens it"
cryptsetup open --disable-locks --key-file /phrase /dev/vda disk || exit 1
cryptsetup status disk | grep -E "cipher|sector size" | while read -r line; do echo "guest: $line"; done
mount -t ext4 /dev/mapper/disk /mnt || exit 2
echo "guest: data $(sha256sum </mnt/data)"
head -c 700000 /dev/urandom >/mnt/answer
echo "guest: answer $(sha256sum </mnt/answer)"
umount /mnt && cryptsetup close disk
' 'virtio_pci virtio_blk dm_crypt xts aesni_intel algif_skcipher af_alg ext4' "$work/phrase=phrase" "$(command -v cryptsetup)=bin/cryptsetup"
guest_start "$work/initrd" "$work/serial" -drive "file=$work/disk,format=raw,if=virtio"
guest_wait
said=$work/serial.text
grep -q 'opens it' "$said" && fail "a wrong pass phrase opens it"
grep -q "^guest: data $sum" "$said" || fail "the guest read something else: $(grep guest: "$said")"
grep -q 'aes-xts-plain64' "$said" || fail "the guest used another cipher: $(grep guest: "$said")"
answer=$(sed -n 's/^guest: answer \([0-9a-f]*\).*/\1/p' "$said")
[ -n "$answer" ] || fail "the guest wrote nothing"

reseal transcode -q --source-passphrase-file "$work/phrase" luks:"$work/disk" plain:"$work/back" || fail "transcode back"
debugfs -R "dump /answer $work/answer" "$work/back" >/dev/null 2>&1
[ "$(sha256sum <"$work/answer" | cut -d' ' -f1)" = "$answer" ] || fail "what the guest wrote reads otherwise"
