#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Power is lost at any write or flush: what was not flushed is there or not, sector by sector. The next run always
# goes on or starts again, and not a byte is lost; in place and out of place.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/images.sh"
cc=$(command -v cc || command -v gcc || command -v clang) || { echo "no C compiler to build the preload with"; exit 77; }
"$cc" -shared -fPIC -O1 -D_GNU_SOURCE -o loss.so "$RESEAL_SOURCE/tests/support/preload/power-loss.c" -ldl
points=${POWER_LOSS_POINTS:-6}
service_start

truncate -s 1M raw
head -c 700000 /dev/urandom | dd of=raw conv=notrunc status=none
qemu_luks one.luks old raw
loss() { # loss AT SEED COMMAND...
    local at=$1 seed=$2
    shift 2
    POWER_LOSS_AT=$at POWER_LOSS_SEED=$seed POWER_LOSS_COUNT=count LD_PRELOAD=$PWD/loss.so "$@"
}
in_place="reseal transcode -q $fast --in-place --buffered --io pread --zone 128K --chunk 64K $old_new luks:victim.luks"
copy="reseal transcode -q $fast --buffered --io pread --chunk 64K --luks-version 1 $old_new luks:one.luks luks:victim.luks"

# again CODE COMMAND...: after the crash; CODE is what a run says that finds all done
again() {
    local done=$1 code=0
    shift
    "$@" 2>err || code=$?
    [ $code = 0 ] || [ $code = "$done" ] || fail "after a loss at $at (seed $seed): exit code $code: $(cat err)"
    same_as_raw victim.luks new raw
    opens victim.luks new
    [ ! -e victim.luks.reseal-journal ] && [ ! -e victim.luks.reseal-state ] || [ $code != 0 ] || fail "a journal stayed"
    rm -f victim.*
}

try() { # try CODE COMMAND...
    local code=$1 total at seed got
    shift
    prepare
    loss 0 1 "$@"
    total=$(cat count)
    same_as_raw victim.luks new raw
    rm -f victim.*
    for ((i = 0; i < points; i++)); do
        seed=$((RANDOM + 1))
        # Spread over the run, so that each step gets its share.
        at=$((1 + (i * total + RANDOM % total) / points))
        prepare
        got=0
        loss $at $seed "$@" 2>err || got=$?
        [ $got = 99 ] || [ $got = 0 ] || fail "no loss at $at of $total: exit code $got: $(cat err)"
        # Lost again while it resumes, now and then.
        if [ $((RANDOM % 2)) = 0 ]; then loss $((1 + RANDOM % 20)) $seed "$@" 2>/dev/null || true; fi
        again "$code" "$@"
    done
    echo "$points of $total points"
}

prepare() { cp one.luks victim.luks; }
try 4 $in_place
prepare() { rm -f victim.*; }
try 3 $copy
