#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A VM under a trusted provider: the host's TPM (swtpm) is attested, the VM is encrypted, locked while the services are away and
# the host has forgotten the key, unlocked when they are back; and it moves to the native provider and back.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/trusted.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"

trusted_tpm
trusted_services
service_start --state-dir "$work/keys" </dev/null >"$work/reseald.log" 2>&1
vm_provider local
reseal provider add far --trusted "$site/published.json" --tpm "$TPM2TOOLS_TCTI" >/dev/null
vm_make web 1
vm encrypt --provider far web
[ "$(vm_field web "['provider']")" = far ] || fail "not by the trusted provider"
key=$(vm_field web "['key']")
[ "$(vm_field web "['disks'][0]['key']")" = "$key" ] || fail "the disk has another key"
vm unlock web

# The services are away: what is in memory opens it; a host that forgot it does not.
trusted_services_stop
vm unlock web
reseal key forget >/dev/null
[ "$(vm_field web "['locked']")" = True ] || fail "not locked"
vm show web >show
grep -q KeyStateClusterUnreachable show || fail "show does not say why: $(cat show)"
vm_expect 4 'is locked' vm unlock web
grep '"id":"com.vmware.vc.vm.Crypto.VMLocked.TAKMSClusterUnavaliable"' keys/events.jsonl | grep -q '"vm":"web"' ||
    fail "no event of a locked VM: $(tail -n 3 keys/events.jsonl)"
vm_expect 4 'is locked' vm decrypt web

# They are back.
trusted_services
for _ in $(seq 600); do vm unlock web 2>err && break || sleep 0.1; done
grep '"id":"com.vmware.vc.vm.Crypto.VMUnlocked"' keys/events.jsonl | tail -n 1 | grep -q '"vm":"web"' || fail "no event: $(cat err)"

# To the native provider, and back.
vm recrypt --shallow --provider local web
trusted_services_stop
reseal key forget >/dev/null
vm unlock web
trusted_services
for _ in $(seq 600); do vm recrypt --shallow --provider far web 2>err && break || sleep 0.1; done
[ "$(vm_field web "['provider']")" = far ] || fail "not back: $(cat err)"

# The service has another primary key: the VM's key is none of its own.
trusted_services_stop
cp "$site/primary.key" "$site/primary.old"
openssl rand -out "$site/primary.key" 32
trusted_services
reseal key forget >/dev/null
vm_expect 4 'is locked' vm unlock web
grep '"id":"com.vmware.vc.vm.Crypto.VMLocked.TA' keys/events.jsonl | tail -n 1 | grep -q '"vm":"web"' || fail "no event"

# It has the right one again, and another certificate: it is the provider that is not trusted, not the VM that is damaged.
trusted_services_stop
cp "$site/primary.old" "$site/primary.key"
rm -rf "$site/keys"
trusted_services
vm_expect 4 'another certificate' vm unlock web
grep -q 'damaged' expect.err && fail "the .vmx is blamed: $(cat expect.err)"
grep '"id":"com.vmware.vc.vm.Crypto.VMLocked.TAKMSClusterUnavaliable"' keys/events.jsonl | tail -n 1 | grep -q KeyStateClusterInvalid ||
    fail "no event of it: $(tail -n 2 keys/events.jsonl)"
reseal provider remove far --force >/dev/null
reseal provider add far --trusted "$site/published.json" --tpm "$TPM2TOOLS_TCTI" >/dev/null
vm unlock web
vm decrypt web
vm_is_original web
