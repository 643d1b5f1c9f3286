#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A tenant whose key servers all hang, more of them than reseal-keyd has children, delays itself: another tenant's key server, and
# the certificate of a new one, are asked as ever.
set -eu
[ "$(id -u)" -eq 0 ] || { echo "only root may have a policy for other users"; exit 77; }
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/kmip.sh"

kmip_silent
well=$(kmip_port)
kmip_start "$well"
cat >"$work/policy.json" <<J
{"version": 1, "tenants": {"acme": {"users": [0], "roles": ["Administrator"]}, "globex": {"users": [0], "roles": ["Administrator"]}}}
J
service_start --policy "$work/policy.json" </dev/null >"$work/reseald.log" 2>&1
reseal provider add well --server "127.0.0.1:$well" --ca "$pki/ca.crt" --cert "$pki/alice.crt" --key "$pki/alice.key" --timeout 30 --tenant globex >/dev/null
key=$(reseal key make --provider well --tenant globex)
reseal provider add well --server "127.0.0.1:$well" --ca "$pki/ca.crt" --cert "$pki/alice.crt" --key "$pki/alice.key" --timeout 30 --tenant acme >/dev/null
waiting=()
begun=$SECONDS
for i in $(seq 20); do
    reseal provider add "slow$i" --server "127.0.0.1:$silent" --ca "$pki/ca.crt" --timeout 60 --tenant acme >/dev/null
    for what in "key status 1 --provider slow$i" "key status 2 --provider slow$i" "provider test slow$i"; do
        # shellcheck disable=SC2086
        reseal $what --tenant acme >"$work/out-${#waiting[@]}" 2>&1 </dev/null &
        waiting+=($!)
    done
done
helpers+=("${waiting[@]}")
reseal key forget --provider well --tenant globex >/dev/null
[ "$(reseal key status "$key" --provider well --tenant globex)" = "available, in memory" ] || fail "another tenant's key"
reseal key make --provider well --tenant globex >/dev/null
reseal provider test well --tenant globex >/dev/null
code=0
setsid -w reseal provider add more --server "127.0.0.1:$well" --tenant globex </dev/null >"$work/shown" 2>&1 || code=$?
grep -q 'fingerprint' "$work/shown" || fail "the certificate of a new server is not shown: $code $(cat "$work/shown")"
# All of it hung meanwhile: those of the first tenant wait still, where this did not take as long as they may wait.
[ $((SECONDS - begun)) -lt 50 ] || exit 0
for pid in "${waiting[@]}"; do kill -0 "$pid" 2>/dev/null || fail "one of those who wait has ended: $(cat "$work"/out-*)"; done
