#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A whole site: a host with a TPM, attestation service, key provider service. The administrator publishes the provider to the
# host, keys come, and stay while the services are away; the host key is sealed by the TPM.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
for program in swtpm swtpm_setup tpm2_pcrread; do
    command -v $program >/dev/null || { echo "$program is not installed"; exit 77; }
done
site=$work/site pids=()
mkdir -m 700 "$site"
site_cleanup() {
    local status=$?
    for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
    (exit $status) || service_cleanup
    service_cleanup
}
trap site_cleanup EXIT

# wait_for TEXT FILE PID: until the line is there.
wait_for() {
    until grep -q "$1" "$2" 2>/dev/null; do
        kill -0 "$3" 2>/dev/null || { cat "$2" >&2; fail "ended before it said '$1'"; }
        sleep 0.05
    done
}

bash "$RESEAL_SOURCE/tests/support/swtpm.sh" "$site" host >/dev/null 2>"$site/swtpm.err" </dev/null &
pids+=($!)
until [ -S "$site/host.sock.ctrl" ]; do
    kill -0 "${pids[0]}" || { cat "$site/swtpm.err"; fail "no swtpm"; }
    sleep 0.05
done
export TPM2TOOLS_TCTI="swtpm:path=$site/host.sock"
until tpm2_pcrread -o "$site/pcrs" sha256:0,7 >/dev/null 2>&1; do sleep 0.05; done
pcr() { od -An -v -tx1 -j "$1" -N 32 "$site/pcrs" | tr -d ' \n'; }

# The services, on ports that are free.
cat >"$site/attestd.json" <<C
{"listen": "127.0.0.1:0", "state": "$site/attestd", "audiences": ["site-a"], "ek_cas": "$site/ca.pem",
 "policy": {"id": "test", "pcrs": {"0": ["$(pcr 0)"], "7": ["$(pcr 32)"]}}}
C
"$RESEAL_BUILD/bin/reseal-attestd" --config "$site/attestd.json" 2>"$site/attestd.log" </dev/null &
attestd=$!
pids+=($attestd)
wait_for ready "$site/attestd.log" $attestd
"$RESEAL_BUILD/bin/reseal-attestd" --config "$site/attestd.json" --publish >"$site/attestd.pub"
openssl rand -out "$site/primary.key" 32
chmod 600 "$site/primary.key"
cat >"$site/keys.json" <<C
{"listen": "127.0.0.1:0", "state": "$site/keys", "name": "site-a", "attestation": ["$site/attestd.pub"],
 "primaries": [{"file": "$site/primary.key"}]}
C
"$RESEAL_BUILD/bin/reseal-keyproviderd" --config "$site/keys.json" 2>"$site/keys.log" </dev/null &
keys=$!
pids+=($keys)
wait_for ready "$site/keys.log" $keys
"$RESEAL_BUILD/bin/reseal-keyproviderd" --config "$site/keys.json" --publish >"$site/published.json"

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
kill $attestd $keys
wait $attestd $keys 2>/dev/null || true
reseal key status "$key" --provider far --cached
reseal key status "$key" --provider far
if reseal key make --provider far 2>"$work/err"; then fail "a key came from nowhere"; fi
grep -q "service 127.0.0.1" "$work/err" || { cat "$work/err"; fail "the refusal does not say which service"; }
grep -q TrustAuthority.ClusterNotAvailable "$work/state/events.jsonl" || fail "no event for the services"

# Another boot: the TPM keeps the host key.
service_stop
tpm2_pcrextend "7:sha256=$(pcr 0)"
"$RESEAL_BUILD/bin/reseald" --runtime-dir "$RESEAL_RUNTIME_DIR" --foreground --state-dir "$work/state" 2>"$work/err" >/dev/null \
    </dev/null &
service_pid=$!
until grep -q "boot what was booted when it was sealed" "$work/err"; do
    kill -0 $service_pid 2>/dev/null || { cat "$work/err"; fail "it does not say why"; }
    sleep 0.05
done
