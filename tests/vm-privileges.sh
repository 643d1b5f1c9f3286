#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A missing privilege is named, and what it forbids leaves the VM as it was.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
me=$(id -u)

# allow NAME...: a policy with these privileges and all pairs
allow() {
    local list
    list=$(printf '"Cryptographer.%s",' "$@")
    printf '{"version": 1, "tenants": {"t": {"users": [%d]}}, "privileges": [{"to": "user:%d", "allow": [%s]}],
 "pairs": [{"for": "tenant:t", "from": "*", "to": "*", "grants": ["plain-out"]}]}\n' "$me" "$me" "${list%,}" >policy.json
}

allow Access ManageKeyServers ManageKeys EncryptNew RegisterVM ReadKeyServersInfo
service_start --policy "$work/policy.json" --state-dir "$work/keys"
vm_provider local
vm_make web 1
vm_expect 3 'Cryptographer.Encrypt' vm encrypt web
vm_no_leftovers web
vm_is_original web
vm create --disk 1M new
vm_expect 3 'Cryptographer.Recrypt' vm recrypt --shallow new
vm_expect 3 'Cryptographer.Encrypt' vm recrypt --deep new
vm_no_leftovers new
service_stop

allow Access Encrypt Recrypt ManageKeys
service_start --policy "$work/policy.json" --state-dir "$work/keys"
vm_expect 3 'Cryptographer.EncryptNew' vm create --disk 1M other
[ ! -e other ] || fail "a VM without the right to make it"
vm_expect 3 'Cryptographer.RegisterVM' vm unlock new
vm encrypt web
vm_expect 3 'Cryptographer.RegisterVM' vm decrypt web
service_stop

# To have a VM open is not to have it decrypted for good, whole or in part.
allow Access RegisterVM Encrypt Recrypt ManageKeys
service_start --policy "$work/policy.json" --state-dir "$work/keys"
vm unlock web
for part in '' '--disk scsi0:0'; do
    # shellcheck disable=SC2086  # two words
    vm_expect 3 'Cryptographer.Decrypt' vm decrypt $part web
    vm_no_leftovers web
done
vm unlock web
service_stop
allow RegisterVM Decrypt
service_start --policy "$work/policy.json" --state-dir "$work/keys"
vm_expect 3 'Cryptographer.Access' vm decrypt --disk scsi0:0 web
vm_no_leftovers web
service_stop

# A pass phrase is a way out: it wants Cryptographer.Access and plain-out of the pair, and nothing is changed without.
printf 'a phrase' >phrase
allow Encrypt Recrypt ManageKeys RegisterVM
service_start --policy "$work/policy.json" --state-dir "$work/keys"
vm_expect 3 'is not granted' vm recrypt --shallow --new-passphrase-file phrase web
vm_no_leftovers web
service_stop
allow Access Encrypt Recrypt ManageKeys RegisterVM
sed -i 's/"plain-out"//' policy.json
service_start --policy "$work/policy.json" --state-dir "$work/keys"
vm_expect 3 'with plain-out' vm recrypt --shallow --new-passphrase-file phrase web
vm_no_leftovers web
vm unlock web
service_stop
# The pair names the provider that is left; one of another provider is none.
for from in provider:other provider:local; do
    allow Access Encrypt Recrypt ManageKeys RegisterVM
    sed -i "s|\"from\": \"\*\", \"to\": \"\*\"|\"from\": \"$from\", \"to\": \"plain\"|" policy.json
    grep -qF "$from" policy.json || fail "another policy: $(cat policy.json)"
    service_start --policy "$work/policy.json" --state-dir "$work/keys"
    if [ $from = provider:other ]; then
        vm_expect 3 'provider:local -> plain is not granted' vm recrypt --shallow --new-passphrase-file phrase web
        vm_no_leftovers web
    else
        cp -r web before
        vm recrypt --shallow --new-passphrase-file phrase web
        vm unlock --passphrase-file phrase web
        rm -r web
        mv before web
    fi
    service_stop
done
