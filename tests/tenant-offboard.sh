#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The life of an added tenant: quotas, suspension, and an end that destroys its keys, retires those at a KMIP server where asked, and
# leaves a receipt that can be checked without the service.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/kmip.sh"
[ "$(id -u)" -eq 0 ] || { echo "only root may have a policy for other users"; exit 77; }

cat >"$work/policy.json" <<J
{"version": 1, "tenants": {"main": {"users": [0], "roles": ["Administrator"]}}}
J
kmip=$(kmip_port)
kmip_start "$kmip"
service_start --policy "$work/policy.json" </dev/null >"$work/reseald.log" 2>&1

reseal tenant add acme --user 0 --weight 200 --max-keys 10 --role Administrator
reseal tenant list | grep -q '^acme *added *200 *10 ' || fail "$(reseal tenant list)"
refused 1 'there is a tenant acme already' reseal tenant add acme
refused 1 'no local user' reseal tenant add other --user nobody-of-that-name
refused 1 'to 1000' reseal tenant quota acme --weight 2000
reseal tenant quota acme --weight 300 --max-sessions 2
refused 1 'one of the policy file' reseal tenant quota main --weight 5
reseal tenant list | grep -q '^acme *added *300 *10 *2 ' || fail "$(reseal tenant list)"

# Its own providers and keys.
as() { "$@" --tenant acme; }
as reseal provider add vault --server "127.0.0.1:$kmip" --ca "$pki/ca.crt" --cert "$pki/alice.crt" --key "$pki/alice.key" >/dev/null
as reseal provider add safe --native >/dev/null
printf 'a long enough password\n' >"$work/password" && chmod 600 "$work/password"
as reseal provider export safe --output "$work/safe.p12" --password-file "$work/password" >/dev/null
key=$(as reseal key make --provider vault)
own=$(as reseal key make --provider safe)
reseal provider list | grep -q vault && fail "another tenant sees its provider"
reseal provider add ours --native >/dev/null

# Suspended, and back.
reseal tenant suspend acme
refused 3 'the tenant is suspended' reseal key list --tenant acme
service_stop
service_start --policy "$work/policy.json" </dev/null >>"$work/reseald.log" 2>&1
refused 3 'the tenant is suspended' reseal key list --tenant acme
reseal tenant resume acme
as reseal key status "$key" --provider vault >/dev/null || fail "it is resumed"

# The key server is away: nothing is destroyed, and the same command goes on later.
refused 3 'add --yes' reseal tenant offboard acme
kmip_kill "$kmip"
refused 1 'nothing is destroyed' reseal tenant offboard acme --yes --retire-keys --receipt "$work/receipt.json"
[ ! -e "$work/receipt.json" ] || fail "a receipt for nothing"
ls "$RESEAL_RUNTIME_DIR/state/providers" | grep -q '^safe@acme' || fail "a provider is gone"
kmip_start "$kmip"
until reseal tenant offboard acme --yes --retire-keys --receipt "$work/receipt.json" >"$work/out" 2>&1; do
    grep -q 'nothing is destroyed' "$work/out" || fail "$(cat "$work/out")" # it waits before it asks a server again
    sleep 0.2
    [ $((tries = ${tries:-0} + 1)) -lt 300 ] || fail "$(cat "$work/out")"
done
grep -q 'destroyed: key derivation key of provider safe' "$work/out" || fail "$(cat "$work/out")"
grep -q 'destroyed: credentials of provider vault' "$work/out" || fail "$(cat "$work/out")"
grep -q 'keys: 2 named, 1 retired' "$work/out" || fail "$(cat "$work/out")"
ls "$RESEAL_RUNTIME_DIR/state/providers" | grep '@acme' && fail "something of it is left"
ls "$RESEAL_RUNTIME_DIR/state/providers" | grep -q '^ours@main' || fail "another tenant's provider is gone"
! kmip_do alice "c.get('$key')" 2>/dev/null || fail "the key is still at the key server"
refused 3 '' reseal key list --tenant acme
grep -qF -- "\"$key\"" "$work/receipt.json" && fail "the receipt has a key id itself"
grep -q "$(printf %s "$own" | sha256sum | cut -d' ' -f1)" "$work/receipt.json" || fail "the receipt does not name the key"

# The receipt.
reseal tenant verify-receipt "$work/receipt.json" >"$work/out" || fail "the receipt does not verify"
fingerprint=$(sed -n 's/^signed by \([0-9a-f]*\)$/\1/p' "$work/out")
[ -n "$fingerprint" ] || fail "$(cat "$work/out")"
sed 's/"acme"/"main"/' "$work/receipt.json" >"$work/changed.json"
refused 5 'it was changed' reseal tenant verify-receipt "$work/changed.json"
refused 5 'not a receipt' reseal tenant verify-receipt "$work/policy.json"
refused 4 'signed by another key' reseal tenant verify-receipt "$work/receipt.json" --key "$(tr 0-9a-f 1-9a-f0 <<<"$fingerprint")"
refused 2 '64 hexadecimal digits' reseal tenant verify-receipt "$work/receipt.json" --key "${fingerprint}0"
service_stop
reseal tenant verify-receipt "$work/receipt.json" --key "$fingerprint" >/dev/null || fail "it needs a service"
service_start --policy "$work/policy.json" </dev/null >>"$work/reseald.log" 2>&1
reseal tenant verify-receipt "$work/receipt.json" >/dev/null || fail "another key after a restart"
reseal events --id reseal.tenant.Offboarded | grep -q 'tenant acme was offboarded' || fail "no event"

# The name can be used again, with nothing of the old.
reseal tenant add acme --user 0 --role Administrator
[ "$(as reseal provider list | grep -c '@\|vault\|safe')" -eq 0 ] || fail "something came back"
exit 0
