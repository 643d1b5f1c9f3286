#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The service dies in the middle, and its keys with it: the run ends with 7, and the same command goes on.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/images.sh"
service_start

content raw 64
qemu_luks one.luks old raw

for try in 1 2 3 4 5; do
    rm -f a.luks*
    code=0
    reseal transcode -q $fast --depth 1 --chunk 64K --luks-version 1 $old_new luks:one.luks luks:a.luks 2>err &
    pid=$!
    while [ ! -e a.luks.reseal-state ] && kill -0 $pid 2>/dev/null; do :; done
    service_stop
    # Another service comes, without the keys: those from pass phrases are gone with the first.
    service_start
    wait $pid || code=$?
    [ $code = 0 ] && continue
    [ $code = 7 ] || fail "exit code $code: $(cat err)"
    grep -q 'run the same command again' err || fail "no advice: $(cat err)"
    reseal transcode -q --resume $old_new luks:one.luks luks:a.luks
    break
done
same_as_raw a.luks new raw
