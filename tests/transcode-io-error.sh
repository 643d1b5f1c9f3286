#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A disk that cannot be read or written in the middle (a loop device whose file was cut): exit code 6, and it goes on later.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/images.sh"
service_start

[ "$(id -u)" = 0 ] || { echo "needs root for a loop device"; exit 77; }
content raw 32
qemu_luks disk old raw
cp disk whole
size=$(stat -c %s disk)
loop=$(losetup -f --show disk 2>/dev/null) || { echo "no loop device to be had"; exit 77; }
trap 'status=$?; losetup -d $loop; service_stop; rm -rf "$work"; exit $status' EXIT

expect 2 'same disk' reseal transcode $fast $old_new luks:disk luks:$loop --existing
expect 2 '--journal' reseal transcode $fast --in-place $old_new luks:$loop
expect 3 'there already' reseal transcode $fast $old_new luks:whole luks:$loop

# Reading fails half way: what came before is kept.
truncate -s 20M disk
blockdev --flushbufs $loop
expect 6 'Input/output error' reseal transcode --direct $fast --luks-version 1 $old_new luks:$loop luks:a.luks
grep -q 'run the same command again' expect.err
cp whole fresh
dd if=fresh of=disk conv=notrunc status=none
blockdev --flushbufs $loop
reseal transcode -q --verify $old_new luks:$loop luks:a.luks
same_as_raw a.luks new raw

# The same in place, on the block device itself.
truncate -s 20M disk
blockdev --flushbufs $loop
expect 6 'Input/output error' reseal transcode $fast --in-place --zone 1M --journal j $old_new luks:$loop
[ -e j ] || fail "no journal was kept"
dd if=whole of=disk bs=1M skip=20 seek=20 conv=notrunc status=none
[ "$(stat -c %s disk)" = "$size" ]
blockdev --flushbufs $loop
cryptsetup isLuks $loop && fail "a half re-encrypted disk opens"
reseal transcode -q --in-place --journal j $old_new luks:$loop
sync
same_as_raw disk new raw

# Onto a block device.
losetup -d $loop
truncate -s 30M big
loop=$(losetup -f --show big)
expect 2 'too small' reseal transcode --existing $fast $old_new luks:whole luks:$loop
losetup -d $loop
truncate -s 40M big
loop=$(losetup -f --show big)
reseal transcode -q --verify --existing $fast --luks-version 1 $old_new luks:whole luks:$loop
opens $loop new
