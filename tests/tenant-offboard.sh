#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The life of an added tenant: quotas, suspension, and an end that destroys its keys, retires those at a KMIP server where asked, and
# leaves a receipt that can be checked without the service. What was retired is forgotten on a host, too.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/kmip.sh"
[ "$(id -u)" -eq 0 ] || { echo "only root may have a policy for other users"; exit 77; }

cleanup() {
    local status=$?
    set +e
    kill -TERM "${host_pid:-}" 2>/dev/null && wait "$host_pid"
    (exit $status)
    kmip_cleanup
}
trap cleanup EXIT
until_true() { # until_true TEXT COMMAND...
    local text=$1 tries=0
    shift
    until "$@" >"$work/tried" 2>&1; do
        [ $((tries += 1)) -lt 900 ] || fail "$text: $(cat "$work/tried"; reseal host list --json)"
        sleep 0.1
    done
}
fingerprint() { sed -n 's/.*"fingerprint": "\([0-9a-f]*\)".*/\1/p'; }
on() { RESEAL_RUNTIME_DIR=$work/host reseal "$@"; }
has() { on key status --cached "$1" --provider common; }
has_not() { ! has "$1"; }

mkdir -m 700 "$work/host"
agent=$(kmip_port)
mkfifo "$work/ready-host"
"$RESEAL_BUILD/bin/reseald" --runtime-dir "$work/host" --agent "127.0.0.1:$agent" --ready-fd 9 9>"$work/ready-host" </dev/null >"$work/host.log" 2>&1 &
host_pid=$!
read -r _ <"$work/ready-host" || fail "the host does not start: $(cat "$work/host.log")"

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
as reseal provider add vault --server "127.0.0.1:$kmip" --ca "$pki/ca.crt" --cert "$pki/alice.crt" --key "$pki/alice.key" --timeout 30 >/dev/null
as reseal provider add safe --native >/dev/null
printf 'a long enough password\n' >"$work/password" && chmod 600 "$work/password"
as reseal provider export safe --output "$work/safe.p12" --password-file "$work/password" >/dev/null
key=$(as reseal key make --provider vault)
own=$(as reseal key make --provider safe)
reseal provider list | grep -q vault && fail "another tenant sees its provider"
# And one through a provider for all.
reseal provider add common --shared --server "127.0.0.1:$kmip" --ca "$pki/ca.crt" --cert "$pki/alice.crt" --key "$pki/alice.key" >/dev/null
shared=$(as reseal key make --provider common)
other=$(reseal key make --provider common)
on host trust "$(reseal host state --json | fingerprint)"
reseal host add host "127.0.0.1:$agent" --fingerprint "$(on host state --json | fingerprint)"
until_true "the host has no key" has "$shared"
until_true "the host has no key of another" has "$other"
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
# A list of its keys that cannot be read: no receipt says that there were none.
state=$RESEAL_RUNTIME_DIR/state
list=$(grep -lF "\"$shared\"" "$state"/made-*.jsonl)
cp -p "$list" "$work/list"
truncate -s 65M "$list"
refused 5 'cannot be read' reseal tenant offboard acme --yes --retire-keys --receipt "$work/receipt.json"
cp -p "$work/list" "$list"
# One of as many keys as many years make has room for all.
awk 'BEGIN { for (i = 0; i < 60000; i++) printf "[\"safe\",\"rsn1.%060d\"]\n", i }' >>"$list"
# One provider cannot be removed: the receipt that comes later names what this try has destroyed, too.
mv "$state/providers/vault@acme.json" "$work/vault@acme.json"
mkdir "$state/providers/vault@acme.json"
until reseal tenant offboard acme --yes --retire-keys --receipt "$work/receipt.json" >"$work/out" 2>&1; do
    if grep -q 'not all of its keys are destroyed' "$work/out" && [ -d "$state/providers/vault@acme.json" ]; then
        ls "$state/providers" | grep -q '^safe@acme' && fail "nothing was destroyed"
        rmdir "$state/providers/vault@acme.json"
        mv "$work/vault@acme.json" "$state/providers/vault@acme.json"
        continue
    fi
    grep -q 'nothing is destroyed' "$work/out" || fail "$(cat "$work/out")" # it waits before it asks a server again
    sleep 0.2
    [ $((tries = ${tries:-0} + 1)) -lt 300 ] || fail "$(cat "$work/out")"
done
[ ! -e "$work/vault@acme.json" ] || fail "it went well although a provider could not be removed"
! ls "$state" | grep '^offboarding-' || fail "what was begun is over"
grep -q 'destroyed: key derivation key of provider safe' "$work/out" || fail "$(cat "$work/out")"
grep -q 'destroyed: credentials of provider vault' "$work/out" || fail "$(cat "$work/out")"
grep -q 'keys: 60003 named, 2 retired' "$work/out" || fail "$(cat "$work/out")"
ls "$RESEAL_RUNTIME_DIR/state/providers" | grep '@acme' && fail "something of it is left"
ls "$RESEAL_RUNTIME_DIR/state/providers" | grep -q '^ours@main' || fail "another tenant's provider is gone"
! kmip_do alice "c.get('$key')" 2>/dev/null || fail "the key is still at the key server"
# Nor does anybody else open with its key of the provider for all, which goes on.
! reseal key status "$shared" --provider common >"$work/status" 2>&1 || fail "the shared provider's key: $(cat "$work/status")"
reseal key status "$other" --provider common >/dev/null || fail "another tenant's key of the shared provider"
until_true "the host keeps a key that was retired" has_not "$shared"
has "$other" || fail "the host forgot another tenant's key"
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
