# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2154
# A site with a TPM, an attestation service and a key provider service, for script tests. Source service.sh first.
#
#   trusted_tpm             swtpm in $site; sets TPM2TOOLS_TCTI
#   trusted_services        starts both services, on the ports that they had before; $site/published.json is what a host is given
#   trusted_services_stop
#   wait_for TEXT FILE PID  until the line is there

for program in swtpm swtpm_setup tpm2_pcrread; do
    command -v $program >/dev/null || { echo "$program is not installed"; exit 77; }
done
site=$work/site pids=() attestd= keys=
mkdir -m 700 "$site"
trusted_cleanup() {
    local status=$? p
    for p in "${pids[@]}" $attestd $keys; do kill "$p" 2>/dev/null || true; done
    (exit $status) || service_cleanup
    service_cleanup
}
trap trusted_cleanup EXIT

wait_for() {
    until grep -q "$1" "$2" 2>/dev/null; do
        kill -0 "$3" 2>/dev/null || { cat "$2" >&2; fail "ended before it said '$1'"; }
        sleep 0.05
    done
}

trusted_tpm() {
    bash "$RESEAL_SOURCE/tests/support/swtpm.sh" "$site" host >/dev/null 2>"$site/swtpm.err" </dev/null &
    pids+=($!)
    until swtpm_ioctl --unix "$site/host.sock.ctrl" -c >/dev/null 2>&1; do
        kill -0 "${pids[-1]}" || { cat "$site/swtpm.err" "$site/host.log"; fail "no swtpm"; }
        sleep 0.05
    done
    export TPM2TOOLS_TCTI="swtpm:path=$site/host.sock"
    until tpm2_pcrread -o "$site/pcrs" sha256:0,7 >/dev/null 2>&1; do sleep 0.05; done
}

trusted_pcr() { od -An -v -tx1 -j "$1" -N 32 "$site/pcrs" | tr -d ' \n'; }

trusted_port() {
    /usr/bin/python3 "$RESEAL_SOURCE/tests/support/free-port.py"
}

trusted_services() {
    if [ ! -e "$site/attestd.json" ]; then
        cat >"$site/attestd.json" <<C
{"listen": "127.0.0.1:$(trusted_port)", "state": "$site/attestd", "audiences": ["site-a"], "ek_cas": "$site/ca.pem",
 "policy": {"id": "test", "pcrs": {"0": ["$(trusted_pcr 0)"], "7": ["$(trusted_pcr 32)"]}}}
C
        cat >"$site/keys.json" <<C
{"listen": "127.0.0.1:$(trusted_port)", "state": "$site/keys", "name": "site-a", "attestation": ["$site/attestd.pub"],
 "primaries": [{"file": "$site/primary.key"}]}
C
        openssl rand -out "$site/primary.key" 32
        chmod 600 "$site/primary.key"
    fi
    : >"$site/attestd.log"
    "$RESEAL_BUILD/bin/reseal-attestd" --config "$site/attestd.json" 2>"$site/attestd.log" </dev/null &
    attestd=$!
    wait_for ready "$site/attestd.log" $attestd
    "$RESEAL_BUILD/bin/reseal-attestd" --config "$site/attestd.json" --publish >"$site/attestd.pub"
    : >"$site/keys.log"
    "$RESEAL_BUILD/bin/reseal-keyproviderd" --config "$site/keys.json" 2>"$site/keys.log" </dev/null &
    keys=$!
    wait_for ready "$site/keys.log" $keys
    "$RESEAL_BUILD/bin/reseal-keyproviderd" --config "$site/keys.json" --publish >"$site/published.json"
}

trusted_services_stop() {
    kill $attestd $keys 2>/dev/null || true
    wait $attestd $keys 2>/dev/null || true
    attestd= keys=
}
