#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A key server that hangs delays only those who need it, for as long as was said, and many who wait for it no longer than one.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/kmip.sh"
. "$RESEAL_SOURCE/tests/support/images.sh"

kmip_silent
port=$silent
service_start </dev/null >"$work/reseald.log" 2>&1
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=ca -keyout "$work/ca.key" -out "$work/ca.crt" 2>/dev/null

reseal provider add slow --server "127.0.0.1:$port" --ca "$work/ca.crt" --timeout 60 >/dev/null
reseal provider add safe --native --default >/dev/null
well=$(kmip_port)
kmip_start "$well"
reseal provider add well --server "127.0.0.1:$well" --ca "$pki/ca.crt" --cert "$pki/alice.crt" --key "$pki/alice.key" --timeout 60 >/dev/null
content disk 2
qemu_luks locked old disk
printf 'a long enough password' >"$work/password"
chmod 600 "$work/password"

# More of them than reseal-keyd has children for one user.
waiting=()
begun=$SECONDS
for i in $(seq 12); do
    reseal key status "$i" --provider slow >"$work/slow-$i" 2>&1 </dev/null &
    waiting+=($!)
done
reseal provider export safe --output "$work/safe.p12" --password-file "$work/password" >/dev/null
key=$(reseal key make)
reseal key status "$key" >/dev/null
reseal provider list >/dev/null
# Another key server: a key is made, forgotten, fetched.
other=$(reseal key make --provider well)
reseal key forget --provider well >/dev/null
[ "$(reseal key status "$other" --provider well)" = "available, in memory" ] || fail "another key server's key"
reseal provider test well >/dev/null
# LUKS headers are opened by pass phrase, by a key of the native provider and by one of the other key server.
reseal transcode -q --source-passphrase-file old --to-provider safe --to-key "$key" luks:locked luks:under-safe
reseal transcode -q --to-provider well --to-key "$other" luks:under-safe luks:under-well
reseal transcode -q luks:under-well plain:back
cmp back disk || fail "what was opened is something else"
# And how the service is.
reseal status >/dev/null
reseal status --json >/dev/null
reseal events --since 0 >/dev/null
# Who waits for a key ends when told to, long before the key server's time is up.
reseal transcode --source-passphrase-file old --to-provider slow luks:locked luks:never >"$work/told" 2>&1 </dev/null &
pid=$!
until [ "$(find "/proc/$pid/fd" -lname 'socket:*' 2>/dev/null | wc -l)" -ge 2 ]; do kill -0 $pid || fail "ended: $(cat "$work/told")"; done
kill $pid
code=0
wait $pid || code=$?
[ $code -eq 130 ] || fail "exit code $code: $(cat "$work/told")"
grep -q 'interrupted; nothing was changed' "$work/told" || fail "$(cat "$work/told")"
[ ! -e never ] || fail "there is a destination"
# All of it while they waited, where it did not take as long as they may.
for pid in "${waiting[@]}"; do
    kill -0 "$pid" 2>/dev/null || [ $((SECONDS - begun)) -ge 59 ] || fail "one of those who wait has ended: $(cat "$work"/slow-*)"
done

# Whoever tests a key provider again and again, one of whose servers hangs, keeps its keys from nobody.
reseal provider add both --server "127.0.0.1:$well" --server "127.0.0.1:$port" --ca "$pki/ca.crt" --cert "$pki/alice.crt" --key "$pki/alice.key" \
    --timeout 60 >/dev/null
testing=()
for i in $(seq 6); do
    reseal provider test both >"$work/test-$i" 2>&1 </dev/null &
    testing+=($!)
done
for pid in "${testing[@]}"; do
    until [ -n "$(find "/proc/$pid/fd" -lname 'socket:*' 2>/dev/null)" ]; do kill -0 "$pid" || fail "ended: $(cat "$work"/test-*)"; done
done
reseal key make --provider both >/dev/null
for pid in "${testing[@]}"; do kill -0 "$pid" 2>/dev/null || fail "a test has ended: $(cat "$work"/test-*)"; done
kill "${testing[@]}" 2>/dev/null || true
wait "${testing[@]}" 2>/dev/null || true

# One finds out that it hangs, for all who wait.
kill "${waiting[@]}" 2>/dev/null || true
wait "${waiting[@]}" 2>/dev/null || true
reseal provider update slow --timeout 1 >/dev/null
waiting=()
for i in $(seq 12); do
    reseal key status "$i" --provider slow >"$work/slow-$i" 2>&1 </dev/null &
    waiting+=($!)
done
for pid in "${waiting[@]}"; do
    code=0
    wait "$pid" || code=$?
    [ $code -eq 4 ] || fail "exit code $code: $(cat "$work"/slow-*)"
done
for i in $(seq 12); do
    grep -q 'KeyStateClusterUnreachable: key server 127.0.0.1 does not answer in time' "$work/slow-$i" || fail "$(cat "$work/slow-$i")"
done
event com.vmware.vc.kms.crypto.Unreachable "127.0.0.1:$port"
event com.vmware.vc.kms.crypto.SendKeyError.KMSClusterError 'does not answer in time'
refused 1 'does not answer in time' reseal provider test slow
