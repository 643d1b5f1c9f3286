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
