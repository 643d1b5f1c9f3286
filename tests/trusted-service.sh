#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A whole site: a host with a TPM, attestation service, key provider service. The administrator publishes the provider to the
# host, keys come, and stay while the services are away; the host key is sealed by the TPM.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/trusted.sh"
trusted_tpm
trusted_services

# What is to be published is known before the first start; without "address" it is where the service listens.
sed "s|\"state\": \"[^\"]*\"|\"state\": \"$site/new\"|" "$site/attestd.json" >"$site/new.json"
"$RESEAL_BUILD/bin/reseal-attestd" --config "$site/new.json" --publish >"$site/new.pub" || fail "not before the first start"
grep -q '"address": "127.0.0.1:[0-9]*"' "$site/new.pub" || fail "another address: $(cat "$site/new.pub")"
sed "s|127.0.0.1|0.0.0.0|; s|$site/new|$site/newer|" "$site/new.json" >"$site/newer.json"
if "$RESEAL_BUILD/bin/reseal-attestd" --config "$site/newer.json" --publish >"$site/new.pub" 2>"$work/err"; then
    fail "published without an address: $(cat "$site/new.pub")"
fi
grep -q '"address" must say' "$work/err" || fail "the refusal: $(cat "$work/err")"

# The host: its host key is sealed by the TPM; no key server is configured on it.
export RESEAL_TPM=$TPM2TOOLS_TCTI
service_start --state-dir "$work/state"
[ -e "$work/state/host.key.json" ] || fail "the host key is not sealed by the TPM"
[ ! -e "$work/state/host.key" ] || fail "the host key is in a file"
reseal provider add far --trusted "$site/published.json" --tpm "$TPM2TOOLS_TCTI"
reseal provider test far
key=$(reseal key make --provider far)
[ ${#key} -gt 64 ] || fail "key id '$key'"
grep -q "given" "$site/keys.log" || fail "no audit line of the key provider service"
reseal key status "$key" --provider far
grep -q TaHostAttestPassEvent "$work/state/events.jsonl" || fail "no event for the attestation"

# After a restart the TPM gives the host key back, and the host is still enrolled.
service_stop
service_start --state-dir "$work/state"
reseal key status "$key" --provider far
[ "$(grep -c enrolled "$site/attestd.log")" -eq 1 ] || fail "it was enrolled again"

# Both services are away: what is in memory still works, and what is not is refused with an event.
trusted_services_stop
reseal key status "$key" --provider far --cached
reseal key status "$key" --provider far
if reseal key make --provider far 2>"$work/err"; then fail "a key came from nowhere"; fi
grep -q "service 127.0.0.1" "$work/err" || { cat "$work/err"; fail "the refusal does not say which service"; }
grep -q TrustAuthority.ClusterNotAvailable "$work/state/events.jsonl" || fail "no event for the services"

# Another boot: the TPM keeps the host key.
service_stop
tpm2_pcrextend "7:sha256=$(trusted_pcr 0)"
"$RESEAL_BUILD/bin/reseald" --runtime-dir "$RESEAL_RUNTIME_DIR" --foreground --state-dir "$work/state" 2>"$work/err" >/dev/null \
    </dev/null &
service_pid=$!
until grep -q "boot what was booted when it was sealed" "$work/err"; do
    kill -0 $service_pid 2>/dev/null || { cat "$work/err"; fail "it does not say why"; }
    sleep 0.05
done
