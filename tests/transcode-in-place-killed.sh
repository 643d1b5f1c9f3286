#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 at any moment of an in-place run: nobody opens the image by accident, the next run goes on, nothing is lost.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/images.sh"
service_start

content raw 16
qemu_luks fresh1.luks old raw
luks2 fresh2.luks old raw 512

# Resumes until it is done, killing each run after a random share of a second from when the journal is there.
kill_until_done() {
    local kills=0 code
    while :; do
        reseal transcode -q $fast --in-place --zone 256K --chunk 64K "$@" $old_new luks:a.luks 2>err &
        pid=$!
        while [ ! -e a.luks.reseal-journal ] && kill -0 $pid 2>/dev/null; do :; done
        # Ends at once when the run ends by itself.
        [ $kills -ge 12 ] || timeout 0.$((RANDOM % 2))$((RANDOM % 10))$((RANDOM % 10)) tail --pid=$pid -f /dev/null || true
        [ $kills -ge 12 ] || kill -9 $pid 2>/dev/null || true
        code=0
        wait $pid 2>/dev/null || code=$?
        [ $code != 0 ] || break
        if [ $code != 137 ]; then
            # Killed between the last step and the end: only the journal's name was left, or not even that.
            cryptsetup open --test-passphrase --key-file new a.luks 2>/dev/null && break
            fail "exit code $code: $(cat err)"
        fi
        kills=$((kills + 1))
        [ ! -e a.luks.reseal-journal ] || blocked
    done
    echo "killed $kills times ($*)"
}

# With a journal there, the image is still the old one, already the new one, or blocked: never half of each.
blocked() {
    if cryptsetup isLuks a.luks; then
        cryptsetup open --test-passphrase --key-file new a.luks 2>/dev/null ||
            [ "$(sha256sum <a.luks)" = "$(sha256sum <$fresh)" ] || fail "an image that is half done opens"
    fi
}

for how in "" "--buffered" "--io pread" "--unit 4096"; do
    fresh=fresh1.luks
    [ "$how" != "--unit 4096" ] || fresh=fresh2.luks
    cp $fresh a.luks
    kill_until_done $how
    if [ $fresh = fresh1.luks ]; then same_as_raw a.luks new raw; else same_by_key a.luks new raw 4096 16M; fi
    [ ! -e a.luks.reseal-journal ] || fail "the journal stayed"
done
