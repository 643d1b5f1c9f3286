#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# More connections that say nothing, or nonsense, than the services of a site and the agent of a host take at a time: they make room
# for hosts that have something to say.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/trusted.sh"
trusted_tpm
trusted_services
port_of() { sed -n 's/.*"listen": "127.0.0.1:\([0-9]*\)".*/\1/p' "$1"; }
service_start --state-dir "$work/state" </dev/null >"$work/reseald.log" 2>&1
reseal provider add far --trusted "$site/published.json" --tpm "$TPM2TOOLS_TCTI" >/dev/null
cat >"$work/silent.py" <<'P'
import socket, sys, time
kept = []
for port in sys.argv[1:]:
    for i in range(80):
        s = socket.create_connection(("127.0.0.1", int(port))); kept.append(s)
        if i % 3 == 1: s.sendall(b"\x16\x03\x01")
        if i % 3 == 2: s.sendall(b"GET / HTTP/1.0\r\n\r\n")
print("ready", flush=True); time.sleep(3600)
P
mkfifo "$work/silent"
/usr/bin/python3 "$work/silent.py" "$(port_of "$site/attestd.json")" "$(port_of "$site/keys.json")" >"$work/silent" </dev/null 2>/dev/null &
pids+=($!)
read -r _ <"$work/silent"
reseal provider test far >"$work/out" 2>&1 || fail "hosts are kept out: $(cat "$work/out")"
key=$(reseal key make --provider far) || fail "no key"
reseal key status "$key" --provider far >/dev/null
