#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything lost its power, and the key servers come back last: a host gets the keys of those that answer at once, those of
# the others when they do. A key server that hangs keeps no key of another from a host, and a provider that was removed and is
# there again under its name gives the hosts its keys again. A name that the host uses itself stops nothing but that name.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/kmip.sh"

mkdir -m 700 "$work/a"
agent=$(kmip_port)
host_start() {
    rm -f "$work/ready-a"
    mkfifo "$work/ready-a"
    "$RESEAL_BUILD/bin/reseald" --runtime-dir "$work/a" --agent "127.0.0.1:$agent" --ready-fd 9 9>"$work/ready-a" \
        </dev/null >>"$work/a.log" 2>&1 &
    host_pid=$!
    read -r _ <"$work/ready-a" || fail "the host does not start: $(cat "$work/a.log")"
}
host_stop() {
    kill -TERM "$host_pid" && wait "$host_pid" || true
}
cleanup() {
    local status=$?
    set +e
    kill -CONT -- "-${kmip_pids[$slow]:-0}" 2>/dev/null
    kill -TERM "$host_pid" 2>/dev/null && wait "$host_pid"
    (exit $status)
    kmip_cleanup
}
on() { RESEAL_RUNTIME_DIR=$work/a reseal "$@"; }
until_true() { # until_true TEXT COMMAND...
    local text=$1 tries=0
    shift
    until "$@" >"$work/tried" 2>&1; do
        [ $((tries += 1)) -lt 900 ] || { reseal host list --json; fail "$text: $(cat "$work/tried")"; }
        sleep 0.1
    done
}
fingerprint() { sed -n 's/.*"fingerprint": "\([0-9a-f]*\)".*/\1/p'; }
provider() { reseal provider add "$1" --server "127.0.0.1:$2" --ca "$pki/ca.crt" --cert "$pki/alice.crt" --key "$pki/alice.key" --timeout 30 "${@:3}" >/dev/null; }
has() { on key status --cached "$2" --provider "$1"; }

slow=$(kmip_port)
host_start
trap cleanup EXIT
kmip_start "$slow"
well=$(kmip_port)
kmip_start "$well"
late=$(kmip_port)
kmip_start "$late"
service_start </dev/null >"$work/reseald.log" 2>&1
reseal host add a "127.0.0.1:$agent" --fingerprint "$(on host state --json | fingerprint)"
on host trust "$(reseal host state --json | fingerprint)"
provider slow "$slow" --timeout 60
provider late "$late"
provider well "$well"
of_slow=$(reseal key make --provider slow)
more_of_slow=$(reseal key make --provider slow)
of_late=$(reseal key make --provider late)
of_well=$(reseal key make --provider well)
until_true "the host has no key" has well "$of_well"

# Neither the host nor the manager has a key any more; one server hangs, one is down, one answers.
kill -STOP -- "-${kmip_pids[$slow]}"
kmip_kill "$late"
host_stop
service_stop
service_start </dev/null >"$work/reseald.log" 2>&1
host_start
until_true "a server that hangs keeps others' keys from the host" has well "$of_well"
new=$(reseal key make --provider well)
until_true "a server that hangs keeps a new key from the host" has well "$new"
if has slow "$of_slow" || has late "$of_late"; then fail "a key that nobody gave"; fi
reseal host list --json | grep -q '"complete": false' || fail "a host that lacks keys is complete"
until_true "the list does not say what is missing" bash -c "reseal host list | grep -q '3 keys are missing'"

# They are back.
kill -CONT -- "-${kmip_pids[$slow]}"
kmip_start "$late"
until_true "keys of the server that was down" has late "$of_late"
until_true "keys of the server that hung" has slow "$of_slow"
until_true "all keys of the server that hung" has slow "$more_of_slow"
until_true "the host is not complete" bash -c "reseal host list --json | grep -q '\"complete\": true'"

# Removed, and there again under the same name.
reseal provider remove well --force >/dev/null
until_true "the host keeps a key of a provider that was removed" bash -c "! RESEAL_RUNTIME_DIR=$work/a reseal key status --cached '$of_well' --provider well"
provider well "$well"
until_true "the provider is there again, its key is not" has well "$of_well"

# The host has a native provider of that name.
printf 'a long enough password\n' >"$work/password" && chmod 600 "$work/password"
on provider add safe --native >/dev/null
reseal provider add safe --native >/dev/null
reseal provider export safe --output "$work/safe.p12" --password-file "$work/password" >/dev/null
event com.vmware.vc.host.Crypto.SendKeyError.HostError 'has a key provider safe of its own'
last=$(reseal key make --provider well)
until_true "a name that is used twice keeps other keys away" has well "$last"
on provider remove safe --force >/dev/null
until_true "the name is free, and the host has no native provider" on provider test safe

# A stranger who asks again and again, in whatever tenant's name: the audit counts, and nobody else's has lines of it. What it keeps
# to itself takes no memory from a manager.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$work/stranger.key" -out "$work/stranger.pem" -days 2 -subj /CN=x 2>/dev/null
cat >"$work/stranger.py" <<'P'
import json, socket, ssl, struct, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
context.load_cert_chain(sys.argv[2], sys.argv[3])
def connect(): return context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1])), 60))
def ask(s, what):
    text = json.dumps(what).encode()
    s.sendall(struct.pack(">II", len(text) + 4, len(text)) + text)
    n = struct.unpack(">I", s.recv(4))[0]; return s.recv(n)
first = connect()
for i in range(50): assert b'"status":-8' in ask(first, {"method": "forget", "tenant": "acme", "provider": "p%d" % i})
kept = [connect() for i in range(20)]
for s in kept: s.sendall(struct.pack(">II", 65536, 60000) + b"{")
print("ready", flush=True); sys.stdin.read()
P
mkfifo "$work/stranger" "$work/stranger-end"
/usr/bin/python3 "$work/stranger.py" "$agent" "$work/stranger.pem" "$work/stranger.key" <"$work/stranger-end" >"$work/stranger" 2>"$work/stranger.log" &
stranger=$!
exec 8>"$work/stranger-end"
read -r _ <"$work/stranger" || fail "the stranger: $(cat "$work/stranger.log")"
last=$(reseal key make --provider well)
until_true "strangers keep a manager away" has well "$last"
exec 8>&-
wait $stranger
lines=$(grep -rhc '"operation":"host.refused"' "$work/a/state" | awk "{n += \$1} END {print n}")
[ "$lines" -ge 1 ] && [ "$lines" -le 5 ] || fail "$lines lines for one stranger"
! grep -rq '"tenant":"acme"' "$work/a/state" || fail "a stranger writes into a tenant's audit"

# A manager of many: its keys push out none that it gave before.
cat >"$work/manager.py" <<'P'
import json, os, socket, ssl, struct, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
context.load_cert_chain(sys.argv[2], sys.argv[3])
s = context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1])), 60))
def take(n):
    out = b""
    while len(out) < n: out += s.recv(n - len(out)) or sys.exit("closed")
    return out
for batch in range(24):
    keys = [["", "many", "key-%d" % (64 * batch + i)] for i in range(64)]
    text = json.dumps({"method": "put", "keys": keys}).encode()
    s.sendall(struct.pack(">II", len(text) + 4 + 32 * 64, len(text)) + text + os.urandom(32 * 64))
    answer = json.loads(take(struct.unpack(">II", take(8))[0] - 4))
    assert answer["status"] == 0 and answer["refused"] == [], answer
P
on host trust "$(openssl x509 -in "$work/stranger.pem" -outform DER | sha256sum | cut -d' ' -f1)"
/usr/bin/python3 "$work/manager.py" "$agent" "$work/stranger.pem" "$work/stranger.key" || fail "a put is refused"
for key in key-0 key-700 key-1535; do has many "$key" || fail "the host has lost $key"; done
