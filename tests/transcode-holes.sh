#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Holes stay holes between ciphertexts, are filled on request, and a plain source's zeros are data.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/images.sh"
service_start

holes() {
    echo $(($(stat -c %s "$1") - $(stat -c %b "$1") * 512))
}
truncate -s 64M raw
head -c 1M /dev/urandom | dd of=raw bs=1M seek=3 conv=notrunc status=none
head -c 5000 /dev/urandom | dd of=raw bs=1 seek=33333333 conv=notrunc status=none
truncate -s 16M probe
head -c 1M /dev/zero | dd of=probe conv=notrunc status=none
[ "$(holes probe)" -gt $((12 << 20)) ] || { echo "this file system has no holes"; exit 77; }

# From plain text, every byte counts.
reseal transcode -q --verify $fast --luks-version 1 --destination-passphrase-file old plain:raw luks:full.luks
same_as_raw full.luks old raw
[ "$(holes full.luks)" -lt $((4 << 20)) ] || fail "zeros of a plain source were not encrypted"

# Between keys, what was never written stays so; what was written is the same.
head -c 64 /dev/urandom >k1
head -c 64 /dev/urandom >k2
reseal transcode -q --keep-holes plain:raw xts:sparse.img,key=k1
[ "$(holes sparse.img)" -gt $((56 << 20)) ] || fail "--keep-holes filled holes"
reseal transcode -q --verify $fast --destination-passphrase-file new --luks-version 1 xts:sparse.img,key=k1 luks:sparse.luks
[ "$(holes sparse.luks)" -gt $((56 << 20)) ] || fail "holes were filled"
cp --sparse=always sparse.img place.img
reseal transcode -q --in-place --zone 256K --chunk 64K xts:place.img,key=k1 xts:place.img,key=k2
[ "$(holes place.img)" -gt $((56 << 20)) ] || fail "holes were filled in place"
reseal transcode -q xts:place.img,key=k2 plain:back.raw
cmp raw back.raw || fail "what was written is not the same"

# What comes out in the clear has holes for its zeros, also where the source has none; an existing destination gets the zeros.
reseal transcode -q --verify --source-passphrase-file old luks:full.luks plain:clear.raw
cmp raw clear.raw || fail "zeros became something else"
[ "$(holes clear.raw)" -gt $((56 << 20)) ] || fail "zeros in the clear are no holes"
for how in --fill-holes --existing --force; do
    yes old | head -c 64M >clear.raw
    [ $how != --fill-holes ] || rm clear.raw
    reseal transcode -q $how --source-passphrase-file old luks:full.luks plain:clear.raw
    cmp raw clear.raw || fail "$how: zeros became something else"
done

# Bit-exact on request: a hole is ciphertext that happens to be zero.
reseal transcode -q --fill-holes xts:sparse.img,key=k1 plain:exact1.raw
reseal transcode -q --fill-holes --verify xts:sparse.img,key=k1 xts:exact.img,key=k2
reseal transcode -q xts:exact.img,key=k2 plain:exact2.raw
cmp exact1.raw exact2.raw

# An existing destination gets no hole where its old content would show.
yes old | head -c 64M >exists.img
reseal transcode -q --existing --verify xts:sparse.img,key=k1 xts:exists.img,key=k2
cmp exists.img exact.img
