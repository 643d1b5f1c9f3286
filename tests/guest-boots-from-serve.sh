#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A guest whose root disk is an encrypted image that `reseal vm serve` gives to QEMU: it boots, reads what was put there, what
# it writes is in the image for others who have the pass phrase, and neither QEMU nor the server ever has the disk's key.
set -u
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/guest.sh"
guest_needs
for p in cryptsetup mkfs.ext4 debugfs qemu-img; do command -v $p >/dev/null || { echo "no $p"; exit 77; }; done
service_start --state-dir "$work/state"

# The root: a shell, a marker, and a program that the kernel's first file system hands over to.
mkdir -p "$work"/root/{bin,sbin,dev,proc}
cp "$(command -v busybox)" "$work/root/bin/busybox"
head -c 300000 /dev/urandom >"$work/root/data"
printf 'marker %s' "$(head -c 24 /dev/urandom | base64)" >"$work/root/marker"
cp "$work/root/marker" "$work/marker"
cat >"$work/root/sbin/init" <<'I'
#!/bin/busybox sh
PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t devtmpfs dev /dev
echo "guest: $(busybox cat /marker)"
echo "guest: data $(busybox sha256sum </data)"
busybox head -c 6000000 /dev/urandom >/answer
busybox sync
echo "guest: answer $(busybox sha256sum </answer)"
# Until the host has looked into QEMU's memory. What comes before somebody listens would be lost.
exec 3</dev/ttyS1
echo "guest: listens"
read -r go <&3
busybox dd if=/dev/urandom of=/answer bs=4096 count=100 seek=50 conv=notrunc,fsync 2>/dev/null
echo "guest: answer $(busybox sha256sum </answer)"
busybox mount -o remount,ro /
echo "guest: end 0"
busybox poweroff -f
I
chmod 755 "$work/root/sbin/init"
mkfs.ext4 -q -b 4096 -d "$work/root" "$work/plain" 32M >/dev/null || fail "mkfs.ext4"
rm "$work/root/marker"
printf 'a pass phrase' >"$work/phrase" && chmod 600 "$work/phrase"
printf 'another' >"$work/other" && chmod 600 "$work/other"
# LUKS1, which QEMU's own driver reads as well.
reseal transcode -q --luks-version 1 --pbkdf-ms 100 --destination-passphrase-file "$work/phrase" plain:"$work/plain" luks:"$work/disk" ||
    fail "transcode"
rm "$work/plain"
cryptsetup luksDump -q --dump-volume-key --volume-key-file "$work/key" --key-file "$work/phrase" "$work/disk" >/dev/null || fail "luksDump"
[ "$(stat -c %s "$work/key")" -eq 64 ] || fail "the volume key has $(stat -c %s "$work/key") bytes"

# shellcheck disable=SC2016  # for the guest
guest_build "$work/initrd" '
if mount -t ext4 /dev/vda /mnt 2>/dev/null; then
    echo /sbin/init >/switch
else
    echo "guest: no file system on the disk"
fi' 'virtio_pci virtio_blk'

# Without the key there is no disk: not from the server, and not in the image.
reseal vm serve --disk "$work/disk" --passphrase-file "$work/other" --socket "$work/no.sock" >"$work/said" 2>&1 </dev/null
[ $? -eq 4 ] || fail "a wrong pass phrase: $(cat "$work/said")"
[ ! -e "$work/no.sock" ] || fail "a wrong pass phrase serves"
guest_start "$work/initrd" "$work/serial0" -drive "file=$work/disk,format=raw,if=virtio,snapshot=on"
guest_wait
grep -q '^guest: no file system on the disk$' "$work/serial0.text" || fail "without the key: $(grep guest: "$work/serial0.text")"

mkfifo "$work/serving" "$work/go.in" "$work/go.out"
reseal vm serve --disk "$work/disk" --passphrase-file "$work/phrase" --socket "$work/disk.sock" --ready-fd 9 9>"$work/serving" \
    >"$work/serve.log" 2>&1 </dev/null &
server=$!
read -r _ <"$work/serving" || fail "vm serve: $(cat "$work/serve.log")"
rm "$work/phrase"
guest_start "$work/initrd" "$work/serial" -serial "pipe:$work/go" \
    -drive "if=virtio,format=raw,file.driver=nbd,file.server.type=unix,file.server.path=$work/disk.sock"

# Both have the disk in use now.
for _ in $(seq 3000); do
    grep -q '^guest: listens' "$work/serial" 2>/dev/null && break
    kill -0 "$guest_pid" 2>/dev/null || break
    sleep 0.1
done
grep -q '^guest: listens' "$work/serial" || fail "the guest did not come so far: $(cat "$work/serial" "$work/serial.qemu" "$work/serve.log")"
qemu=$(pgrep -P "$guest_pid" qemu)
for p in "$qemu" "$server"; do
    /usr/bin/python3 "$RESEAL_SOURCE/tests/support/memory-has.py" "$p" "$work/key"
    case $? in
    0) fail "the disk's key is in the memory of $(cat "/proc/$p/comm")" ;;
    1) ;;
    *) [ "$(id -u)" -ne 0 ] || fail "the memory of $(cat "/proc/$p/comm") cannot be read" ;;
    esac
done
# That the search finds something shows that it searches: the guest has read its marker.
/usr/bin/python3 "$RESEAL_SOURCE/tests/support/memory-has.py" "$qemu" "$work/marker"
[ $? -ne 1 ] || fail "the search does not find what is there"
echo go >"$work/go.in"
guest_wait
kill -TERM "$server"
wait "$server" || fail "vm serve ended with $?: $(cat "$work/serve.log")"

said=$work/serial.text
grep -qF "guest: $(cat "$work/marker")" "$said" || fail "the marker: $(grep guest: "$said")"
grep -q "^guest: data $(sha256sum <"$work/root/data" | cut -d' ' -f1)" "$said" || fail "the data: $(grep guest: "$said")"
answer=$(sed -n 's/^guest: answer \([0-9a-f]*\).*/\1/p' "$said" | tail -n 1)

# Another program's view of the image.
printf 'a pass phrase' >"$work/phrase"
qemu-img convert --object "secret,id=s,file=$work/phrase" --image-opts "driver=luks,key-secret=s,file.filename=$work/disk" -O raw "$work/back" ||
    fail "qemu-img"
debugfs -R "dump /answer $work/answer" "$work/back" >/dev/null 2>&1
[ "$(sha256sum <"$work/answer" | cut -d' ' -f1)" = "$answer" ] || fail "what the guest wrote is not in the image"
e2fsck -fn "$work/back" >"$work/fsck" 2>&1 || fail "the file system is damaged: $(cat "$work/fsck")"
! grep -aqF "$(cat "$work/marker")" "$work/disk" || fail "the image is not encrypted"
