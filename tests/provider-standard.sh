#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The life of a standard provider with real KMIP servers (PyKMIP): keys are made and fetched, the next server is asked when one
# is gone, what is in memory outlives all of them, and a reseal-keyd that starts again fetches anew.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/kmip.sh"

one=$(kmip_port)
kmip_start "$one"
two=$(kmip_port)
kmip_start "$two"
service_start </dev/null >"$work/reseald.log" 2>&1

# Nobody confirms a certificate where there is no terminal.
setsid -w reseal provider add vault --server "127.0.0.1:$one" --cert "$pki/alice.crt" --key "$pki/alice.key" </dev/null >"$work/out" 2>&1 &&
    fail "a certificate was trusted without being confirmed"
grep -q -e '--fingerprint' "$work/out" || fail "it does not say how else: $(cat "$work/out")"
shown=$(sed -n 's/^  \(\([0-9a-f]\{2\}:\)\{31\}[0-9a-f]\{2\}\)$/\1/p' "$work/out")
[ "$shown" = "$(openssl x509 -in "$pki/server.crt" -noout -fingerprint -sha256 | sed 's/.*=//' | tr A-F a-f)" ] ||
    fail "it does not show the fingerprint to compare: $(cat "$work/out")"

reseal provider add vault --server "127.0.0.1:$one" --server "127.0.0.1:$two" --ca "$pki/ca.crt" --cert "$pki/alice.crt" \
    --key "$pki/alice.key" --timeout 30 >/dev/null
reseal provider test vault | grep -c ' ok .*KMIP 1.1, TLSv1.2' | grep -qx 2 || fail "both servers answer"
event com.vmware.vc.vecs.KMSServerCertExpirationEvent vault # in less than 30 days
event com.vmware.vc.vecs.KMSClientCertExpirationEvent vault
[ "$(grep -c CertExpirationEvent "$RESEAL_RUNTIME_DIR/state/events.jsonl")" -eq 2 ] || fail "each once a day"

# Texts for the key server are kept with the key, where it has no attributes of ours in its application information.
key=$(reseal key make --detail 'x-Component=Virtual Machine' --detail x-Name=web1)
kmip_do alice "
a = c.get_attributes('$key', ['Application Specific Information', 'State'])[1]
t = str(a[0])
assert 'x-Vendor=Reseal' in t and 'x-Product_Version=' in t and 'x-Name=web1' in t, t
assert 'ACTIVE' in str(a[1]), a[1]"

grep -q '"cached": true' <(reseal key status --json --cached "$key") || fail "a new key is in memory"
[ "$(reseal key forget)" = "1 forgotten" ] || fail "one key was in memory"
refused 4 KeyStateMissingInCache reseal key status --cached "$key"
[ "$(reseal key status "$key")" = "available, in memory" ] || fail "it is fetched"

# The first server goes: the second has the key.
kmip_kill "$one"
reseal key forget >/dev/null
reseal key status "$key" >/dev/null
event com.vmware.vc.kms.crypto.Unreachable "127.0.0.1:$one"
reseal key forget >/dev/null
reseal key status "$key" >/dev/null
[ "$(grep -c "crypto.Unreachable.*127.0.0.1:$one" "$RESEAL_RUNTIME_DIR/state/events.jsonl")" -eq 1 ] || fail "one event while it is away"
refused 1 "1 of 2 servers" reseal provider test vault

# Both are gone: what is in memory works on.
kmip_kill "$two"
reseal key status "$key" >/dev/null
reseal key forget >/dev/null
refused 4 KeyStateClusterUnreachable reseal key status "$key"
grep -q '"operation":"kek.get".*"error":"who gives the key cannot be reached"' "$RESEAL_RUNTIME_DIR/state/audit.jsonl" || fail "the audit does not say it"
event com.vmware.vc.kms.crypto.SendKeyError.KMSClusterError "$key"
refused 7 "check that it runs" reseal key make
event com.vmware.vc.kms.crypto.KeyGenerateFail vault

# They come back, and reseal-keyd starts again: its memory is empty.
kmip_start "$one"
reseal key status "$key" >/dev/null
old=$(keyd_pid)
kill -KILL "$old"
for _ in $(seq 1200); do
    now=$(keyd_pid)
    [ -n "$now" ] && [ "$now" != "$old" ] && reseal key list >"$work/list" 2>/dev/null && break
    sleep 0.05
done
[ ! -s "$work/list" ] || fail "keys outlive reseal-keyd"
reseal provider list | grep -q '^vault .*default' || fail "the provider is kept"
[ "$(reseal key status "$key")" = "available, in memory" ] || fail "it is fetched again"

# A key is kept for as long as is said.
reseal provider update vault --cache 1 >/dev/null
reseal key forget >/dev/null
reseal key status "$key" >/dev/null
for _ in $(seq 1200); do
    [ -z "$(reseal key list)" ] && break
    sleep 0.05
done
[ -z "$(reseal key list)" ] || fail "a key outlives its second"
grep -q '"operation":"kek.get","object":"kek:vault/'"$key" "$RESEAL_RUNTIME_DIR/state/audit.jsonl" || fail "each use is in the audit"
