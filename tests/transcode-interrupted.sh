#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SIGTERM ends a run in order with 130 (a shell's background commands ignore SIGINT); the same command goes on; --resume insists on that; another key is refused.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/images.sh"
service_start

content raw 64
qemu_luks fresh.luks old raw

# Interrupts "$@" once FILE is there; succeeds when it was in time.
interrupt() {
    local file=$1 code=0
    shift
    "$@" >/dev/null 2>err &
    pid=$!
    while [ ! -e "$file" ] && kill -0 $pid 2>/dev/null; do :; done
    kill $pid 2>/dev/null || true
    wait $pid || code=$?
    [ $code = 130 ] || [ $code = 0 ] || fail "exit code $code: $(cat err)"
    [ $code = 130 ]
}

# Out of place.
for try in 1 2 3 4 5 6 7 8; do
    rm -f b.luks*
    if interrupt b.luks.reseal-state reseal transcode -q $fast --depth 1 --chunk 64K --luks-version 1 $old_new luks:fresh.luks luks:b.luks; then
        grep -q 'run the same command again' err || fail "no advice: $(cat err)"
        [ ! -e b.luks ] || ! cryptsetup isLuks b.luks || fail "an unfinished destination opens"
        touch -d '2001-01-01' other.luks 2>/dev/null; cp fresh.luks other.luks
        expect 3 'not the source' reseal transcode $old_new luks:other.luks luks:b.luks
        expect 4 'wrong pass phrase' reseal transcode $new_old luks:fresh.luks luks:b.luks
        reseal transcode -q --verify --resume $old_new luks:fresh.luks luks:b.luks
        break
    fi
done
same_as_raw b.luks new raw
expect 1 'nothing to resume' reseal transcode --resume $old_new luks:fresh.luks luks:c.luks

# In place.
for try in 1 2 3 4 5 6 7 8; do
    cp fresh.luks a.luks
    if interrupt a.luks.reseal-journal reseal transcode -q $fast --in-place --zone 64K --chunk 64K $old_new luks:a.luks; then
        cryptsetup isLuks a.luks && fail "a half re-encrypted image opens"
        qemu-img info --object secret,id=s0,file=old --image-opts driver=luks,key-secret=s0,file.filename=a.luks \
            >/dev/null 2>&1 && fail "QEMU opens a half re-encrypted image"
        expect 4 'wrong pass phrase' reseal transcode --in-place $new_old luks:a.luks
        mv a.luks.reseal-journal away
        expect 5 'name it with --journal' reseal transcode --in-place $old_new luks:a.luks
        cp fresh.luks another.luks
        qemu_luks another.luks old raw
        expect 3 'not the image' reseal transcode --in-place --journal away $old_new luks:another.luks
        reseal transcode -q --in-place --journal away $old_new luks:a.luks
        [ ! -e away ] || fail "the journal stayed"
        break
    fi
    reseal transcode -q --in-place $old_new luks:a.luks 2>/dev/null || true
done
same_as_raw a.luks new raw

# Raw XTS has no header that would tell keys apart: the journal does.
head -c 64 /dev/urandom >k1
head -c 64 /dev/urandom >k2
head -c 64 /dev/urandom >k3
for try in 1 2 3 4 5 6 7 8; do
    rm -f x.img
    reseal transcode -q plain:raw xts:x.img,key=k1
    if interrupt x.img.reseal-journal reseal transcode -q --in-place --zone 64K --chunk 64K xts:x.img,key=k1 xts:x.img,key=k2; then
        expect 4 'not those of the interrupted run' reseal transcode --in-place xts:x.img,key=k1 xts:x.img,key=k3
        reseal transcode -q --in-place xts:x.img,key=k1 xts:x.img,key=k2
        break
    fi
done
reseal transcode -q xts:x.img,key=k2 plain:x.raw
cmp x.raw raw
