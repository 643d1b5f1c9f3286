#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What is kept with a key on a server that has custom attributes: who made it, and what it is used for. The server is PyKMIP with a
# wrapper of our own (tests/support/pykmip-attributes.py), since PyKMIP itself refuses them: no proof of other makers' servers.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/kmip.sh"

port=$(kmip_port)
kmip_start "$port" '' "$RESEAL_SOURCE/tests/support/pykmip-attributes.py"
service_start </dev/null >"$work/reseald.log" 2>&1
reseal provider add vault --server "127.0.0.1:$port" --ca "$pki/ca.crt" --cert "$pki/alice.crt" --key "$pki/alice.key" --timeout 30 >/dev/null
reseal provider test vault >/dev/null
key=$(reseal key make --detail 'x-Component=Virtual Machine' --detail x-Name=web1 --detail x-Identifier=50212b1d-1a2b)
version=$(reseal --version | cut -d' ' -f2)
kmip_do alice "
rows = dict()
for a in c.get_attributes('$key', ['Application Specific Information'])[1]:
    v = a.attribute_value
    rows[v.application_namespace] = v.application_data
want = {'x-Vendor': 'Reseal', 'x-Product': 'Reseal', 'x-Product_Version': '$version', 'x-Component': 'Virtual Machine',
        'x-Name': 'web1', 'x-Identifier': '50212b1d-1a2b'}
assert {k: rows.get(k) for k in want} == want, rows"
reseal key forget >/dev/null
reseal key status "$key" >/dev/null

# The key of a VM says which VM it is for.
. "$RESEAL_SOURCE/tests/support/vm.sh"
vm_make web1 1
vm encrypt --provider vault web1
key=$(vm_field web1 "['key']") uuid=$(vm_field web1 "['uuid']")
kmip_do alice "
rows = {str(a.attribute_value.application_namespace): str(a.attribute_value.application_data)
        for a in c.get_attributes('$key', ['Application Specific Information'])[1]}
want = {'x-Vendor': 'Reseal', 'x-Component': 'Virtual Machine', 'x-Name': 'web1', 'x-Identifier': '$uuid'}
assert {k: rows.get(k) for k in want} == want, rows"

# A host key that the server made says which host it is for. Another host that has the same key opens what the first one sealed; and
# when the server has it no more, or is away, that is an event of its own.
uuid=$(cat /sys/class/dmi/id/product_uuid 2>/dev/null) || uuid=
reseal coredump rekey --provider vault --json >"$work/made"
read -r own key < <(python3 -c 'import json,sys; o=json.load(sys.stdin); print(o["key"], o["provider_key"])' <"$work/made")
[ -n "$key" ] || fail "no key of the provider: $(cat "$work/made")"
kmip_do alice "
rows = {str(a.attribute_value.application_namespace): str(a.attribute_value.application_data)
        for a in c.get_attributes('$key', ['Application Specific Information'])[1]}
want = {'x-Vendor': 'Reseal', 'x-Product_Version': '$version', 'x-Component': 'Reseal', 'x-Name': '$(hostname)'}
assert {k: rows.get(k) for k in want} == want and rows.get('x-Identifier', '') == '$uuid', rows"
head -c 100000 /dev/urandom >"$work/core"
reseal coredump handle --folder "$work/cores" --keep-free 0 1 0 0 11 1700000000 host prog <"$work/core" || fail "handle"
dump=$(find "$work/cores" -name 'prog.*.core.ve')
reseal coredump describe "$dump" | grep -q "reseal:host/$own" || fail "sealed by another key: $(reseal coredump describe "$dump")"
# A key that is in memory already, made for nothing yet: its server is told of the use, and nobody waits for that.
bare=$(reseal key make)
reseal coredump rekey --provider vault --key "$bare" >/dev/null
tries=0
until kmip_do alice "
rows = {str(a.attribute_value.application_namespace): str(a.attribute_value.application_data)
        for a in c.get_attributes('$bare', ['Application Specific Information'])[1]}
assert rows.get('x-Component') == 'Reseal' and rows.get('x-Name') == '$(hostname)', rows" 2>"$work/err"; do
    [ $((tries += 1)) -lt 300 ] || fail "the server does not know of the use: $(cat "$work/err")"
    sleep 0.2
done
service_stop
service_start --state-dir "$work/other-state" </dev/null >>"$work/reseald.log" 2>&1
reseal provider add vault --server "127.0.0.1:$port" --ca "$pki/ca.crt" --cert "$pki/alice.crt" --key "$pki/alice.key" --timeout 30 >/dev/null
refused 4 'key' reseal coredump extract "$dump" --out "$work/out"
refused 4 'item not found' reseal coredump rekey --provider vault --key 999999
journal=$work/other-state/events.jsonl
grep -q '"com.vmware.vc.host.Crypto.HostKey.NewKey.KeyMissingOnKMS".*"key":"999999"' "$journal" || fail "no event of the missing key"
[ "$(reseal coredump rekey --provider vault --key "$key" | head -n 1)" = "$own" ] || fail "the same key has another id"
reseal coredump rekey --provider vault --key "$key" >/dev/null # again: nothing is lost
reseal coredump extract "$dump" --out "$work/out"
cmp "$work/core" "$work/out" || fail "another dump"
kmip_kill "$port"
reseal key forget >/dev/null
refused 7 'Connection refused' reseal coredump rekey --provider vault
grep -q '"com.vmware.vc.host.Crypto.HostKey.NewKey.KMSClusterError".*Connection refused' "$journal" || fail "no event of the server"
reseal coredump extract "$dump" --out "$work/out2" # no server is needed for that
