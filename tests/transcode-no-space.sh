#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# No space, in the middle and at the start: exit code 6, nothing lost, and the same command goes on after there is room.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/images.sh"
service_start

content raw 16
qemu_luks one.luks old raw
before=$(sha256sum <one.luks)

# A file-size limit ends the writes in the middle.
code=0
(ulimit -f 8192; exec reseal transcode -q --buffered $fast --luks-version 1 $old_new luks:one.luks luks:limited.luks) 2>err || code=$?
[ $code = 6 ] || fail "exit code $code: $(cat err)"

if [ "$(id -u)" = 0 ] && mkdir small && mount -t tmpfs -o size=12M none small 2>/dev/null; then
    trap 'status=$?; umount -l "$work/small"; service_stop; rm -rf "$work"; exit $status' EXIT
    # In the middle: the state has its place elsewhere.
    expect 6 'run the same command again' reseal transcode $fast --luks-version 1 --journal state $old_new luks:one.luks luks:small/a.luks
    grep -q 'No space left' expect.err
    cryptsetup isLuks small/a.luks && fail "an unfinished destination opens"
    mount -o remount,size=40M small
    reseal transcode -q --verify --journal state $old_new luks:one.luks luks:small/a.luks
    same_as_raw small/a.luks new raw
    [ ! -e state ] || fail "the state stayed"

    # No room for the journal: the image is not touched.
    cp one.luks small/b.luks
    rm small/a.luks
    cp one.luks small/c.luks
    expect 6 'make the journal' reseal transcode --in-place $fast $old_new luks:small/b.luks
    cmp small/b.luks one.luks || fail "the image was touched"
    [ ! -e small/b.luks.reseal-journal ] || fail "half a journal stayed"
else
    echo "not root: no small file system was tried"
fi
[ "$before" = "$(sha256sum <one.luks)" ] || fail "the source was changed"
