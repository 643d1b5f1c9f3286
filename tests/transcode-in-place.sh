#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# In place: LUKS1, LUKS2 from 512 to 4096, LUKS1 to LUKS2 at the same data offset, raw XTS.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/images.sh"
service_start

content raw 16
qemu_luks a.luks old raw
reseal transcode -q $fast --in-place $old_new luks:a.luks
same_as_raw a.luks new raw
opens a.luks new
cryptsetup open --test-passphrase --key-file old a.luks 2>/dev/null && fail "the old pass phrase still opens it"
reseal transcode -q $fast --in-place --buffered --zone 1M $new_old luks:a.luks luks:a.luks
same_as_raw a.luks old raw

luks2 b.luks old raw 512
reseal transcode -q $fast --in-place --unit 4096 --zone 4M $old_new luks:b.luks
cryptsetup luksDump b.luks | grep -q 'sector: *4096' || fail "b.luks has another sector size"
same_by_key b.luks new raw 4096 16M
reseal transcode -q $fast --in-place --io pread $new_old luks:b.luks
cryptsetup luksDump b.luks | grep -q 'sector: *4096' || fail "the unit was not kept"
same_by_key b.luks old raw 4096 16M

offset=$(($(cryptsetup luksDump a.luks | awk '/Payload/ {print $3}') * 512))
reseal transcode -q $fast --in-place --luks-version 2 --unit 512 $old_new luks:a.luks
cryptsetup isLuks --type luks2 a.luks
same_by_key a.luks new raw 512 $offset

head -c 64 /dev/urandom >k1
head -c 64 /dev/urandom >k2
reseal transcode -q plain:raw xts:x.img,key=k1,offset=4K
reseal transcode -q --in-place --zone 2M xts:x.img,key=k1,offset=4K xts:x.img,key=k2,unit=4096,offset=4K,step=8
reseal transcode -q xts:x.img,key=k2,unit=4096,offset=4K,step=8 plain:x.raw
cmp x.raw raw

expect 2 'same data offset' reseal transcode --in-place xts:x.img,key=k2 xts:x.img,key=k1,offset=4K
expect 2 'same file' reseal transcode --in-place xts:x.img,key=k2 xts:x.raw,key=k1
expect 2 '--verify' reseal transcode --in-place --verify luks:a.luks
ls ./*.reseal-* 2>/dev/null && fail "a journal stayed behind"
exit 0
