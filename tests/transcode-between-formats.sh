#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# LUKS1 made by QEMU goes through LUKS2 with both unit sizes and raw XTS, and comes back; QEMU and cryptsetup agree.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/images.sh"
service_start

content raw 16
qemu_luks one.luks old raw
before=$(sha256sum <one.luks)

reseal transcode -q --verify $fast --luks-version 1 $old_new luks:one.luks luks:two.luks
same_as_raw two.luks new raw
opens two.luks new
reseal transcode -q --verify $fast --unit 4096 $old_new luks:one.luks luks:four.luks
opens four.luks new
cryptsetup luksDump four.luks | grep -q 'sector: *4096' || fail "four.luks has another sector size"
same_by_key four.luks new raw 4096 16M
reseal transcode -q --verify $fast --unit 512 $new_old luks:four.luks luks:five.luks
cryptsetup luksDump five.luks | grep -q 'sector: *512' || fail "five.luks has another sector size"
same_by_key five.luks old raw 512 16M
reseal transcode -q --verify $fast --luks-version 1 --key-bits 128 $old_new luks:five.luks luks:back.luks
same_as_raw back.luks new raw

# A header that cryptsetup made.
luks2 made.luks old raw 4096
reseal transcode -q --verify $fast --luks-version 1 $old_new luks:made.luks luks:made1.luks
same_as_raw made1.luks new raw

# Raw XTS with an offset and a first tweak, and plain text on both ends.
head -c 64 /dev/urandom >k1
reseal transcode -q --verify plain:raw xts:x.img,key=k1,unit=1024,offset=64K,tweak=77,step=2
reseal transcode -q --verify xts:x.img,key=k1,unit=1024,offset=64K,tweak=77,step=2 plain:x.raw
cmp x.raw raw
reseal transcode -q --verify $fast --destination-passphrase-file new --luks-version 1 plain:raw luks:p.luks
same_as_raw p.luks new raw

# O_DIRECT, page cache, io_uring, pread: the same bytes.
for how in --direct "--buffered --io uring" "--direct --io pread" "--buffered --no-sync" "--chunk 64K --depth 3"; do
    reseal transcode -q --existing $how xts:x.img,key=k1,unit=1024,offset=64K,tweak=77,step=2 plain:x.raw
    cmp x.raw raw || fail "$how"
    dd if=/dev/zero of=x.raw bs=1M count=3 conv=notrunc status=none
done

[ "$before" = "$(sha256sum <one.luks)" ] || fail "the source was changed"
ls ./*.reseal-* 2>/dev/null && fail "a state file stayed behind"
exit 0
