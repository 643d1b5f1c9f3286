#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# reseald-work and reseal-keyd are killed while a disk is read and written: no request is lost or fails, and what was
# written is there. Where the key cannot come back, requests fail, with a line, and go on when it can.
set -eu
. "$RESEAL_SOURCE/tests/support/vm-serve.sh"
need qemu-img qemu-io cryptsetup nbdcopy
service_start
make_disk "$work/disk.luks" 32M luks2 4096
serve_start --disk "$work/disk.luks"

# child NAME [OLD]: a program of the service; waits until there is one that is not OLD.
child() {
    local pid _i
    for _i in $(seq 600); do
        pid=$(pgrep -P "$service_pid" -x "$1" | head -n 1) || true
        if [ -n "$pid" ] && [ "$pid" != "${2:-}" ]; then
            echo "$pid"
            return 0
        fi
        sleep 0.1
    done
    fail "$1 did not come back"
}

# kills NAME again and again while the process $copy runs.
kill_during() {
    local killed=0 pid=
    while [ $killed -lt 4 ] && kill -0 "$copy" 2>/dev/null; do
        pid=$(child "$1" "$pid")
        kill -KILL "$pid" 2>/dev/null && killed=$((killed + 1))
    done
    wait "$copy" || fail "a copy failed when $1 was killed: $(cat "$work/serve.err")"
    [ $killed -gt 0 ] || fail "$1 was not killed in time"
}

# Slow enough that kills fall into it: small requests, one after the other for each connection.
head -c 32M /dev/urandom >"$work/plain"
for name in reseald-work reseal-keyd; do
    for way in write read; do
        rm -f "$work/back"
        if [ $way = write ]; then
            nbdcopy --connections 2 --requests 2 --request-size 8192 "$work/plain" "$uri" &
        else
            nbdcopy --connections 2 --requests 2 --request-size 8192 "$uri" "$work/back" &
        fi
        copy=$!
        kill_during $name
        [ $way = write ] || cmp "$work/plain" "$work/back" || fail "read something else when $name was killed"
        head -c 32M /dev/urandom >"$work/next"
        [ $way = write ] || mv "$work/next" "$work/plain"
    done
done
qemu-io -f raw -c 'write -P 0x31 1000 100000' -c flush "$uri" >/dev/null || fail "it does not go on"

# Both at once: the key that came by a pass phrase is gone with both, and is opened again from its file.
child reseal-keyd >/dev/null
kill -KILL "$(child reseal-keyd)" "$(child reseald-work)"
qemu-io -f raw -c 'read -P 0x31 1000 100000' "$uri" >"$work/io" || fail "the key was not opened again: $(cat "$work/io" "$work/serve.err")"

# Without the file it cannot be.
mv "$work/pass" "$work/pass.away"
kill -KILL "$(child reseal-keyd)" "$(child reseald-work)"
if qemu-io -f raw -c 'read -P 0x31 1000 100000' "$uri" >"$work/io" 2>&1 && ! grep -q failed "$work/io"; then
    fail "a disk without a key was read"
fi
grep -q 'its key cannot be opened again' "$work/serve.err" || fail "it does not say why: $(cat "$work/serve.err")"
mv "$work/pass.away" "$work/pass"
for _i in $(seq 600); do
    if qemu-io -f raw -c 'read -P 0x31 1000 100000' "$uri" >"$work/io" 2>&1 && ! grep -q failed "$work/io"; then break; fi
    sleep 0.2
done
if grep -q failed "$work/io"; then fail "it does not recover: $(cat "$work/io")"; fi
serve_stop
[ "$serve_code" = 0 ] || fail "exit code $serve_code: $(cat "$work/serve.err")"
echo ok
