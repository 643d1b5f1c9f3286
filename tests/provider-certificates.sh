#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Client certificates of a standard provider are replaced without a restart: another user's, and one that was asked for with a key
# that never leaves the service.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/kmip.sh"

port=$(kmip_port)
kmip_start "$port"
service_start </dev/null >"$work/reseald.log" 2>&1
old=$(keyd_pid)
reseal provider add vault --server "127.0.0.1:$port" --ca "$pki/ca.crt" --cert "$pki/alice.crt" --key "$pki/alice.key" --timeout 30 >/dev/null
alices=$(reseal key make)

# A certificate is confirmed at a terminal, once.
on_terminal() { # on_terminal ANSWER COMMAND
    /usr/bin/python3 -c '
import os, pty, sys
pid, fd = pty.fork()
if pid == 0: os.execvp("sh", ["sh", "-c", sys.argv[2]])
said, answered = b"", False
while True:
    try: more = os.read(fd, 4096)
    except OSError: break
    if not more: break
    said += more
    if b"Type yes" in said and not answered:
        answered = True
        os.write(fd, sys.argv[1].encode() + b"\n")
sys.stdout.write(said.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))' "$@"
}
add="reseal provider add asked --server 127.0.0.1:$port --cert '$pki/alice.crt' --key '$pki/alice.key' --timeout 30"
code=0
on_terminal no "$add" >"$work/out" || code=$?
[ $code -eq 3 ] && grep -q 'CN=localhost' "$work/out" && grep -q 'nothing was changed' "$work/out" || fail "exit code $code: $(cat "$work/out")"
refused 4 "there is no key provider 'asked'" reseal provider test asked
on_terminal yes "$add" >"$work/out" || fail "$(cat "$work/out")"
reseal provider test asked >/dev/null
on_terminal yes 'reseal provider trust asked' >"$work/out" || fail "$(cat "$work/out")"
grep -q 'trusted already' "$work/out" || fail "it is asked again: $(cat "$work/out")"
reseal key forget >/dev/null

reseal provider certificate vault --cert "$pki/bob.crt" --key "$pki/bob.key" >"$work/out"
grep -q 'was changed' "$work/out" || fail "$(cat "$work/out")"
bobs=$(reseal key make)
refused 4 NoPermissionToAccessKeyProvider reseal key status "$alices"
refused 4 'no private key for this certificate is here' reseal provider certificate vault --cert "$pki/alice.crt"
reseal key status "$bobs" >/dev/null

# With a request: until its certificate comes, the old one is shown.
reseal provider csr vault --subject 'CN=alice,O=Example' --output "$work/request" >/dev/null
openssl req -in "$work/request" -noout -verify -subject 2>&1 | grep -q 'alice' || fail "no request: $(cat "$work/request")"
openssl req -in "$work/request" -noout -text | grep -q 'TLS Web Client Authentication' || fail "it is for clients"
reseal key forget >/dev/null
reseal key status "$bobs" >/dev/null
printf '%s\n' basicConstraints=CA:FALSE keyUsage=critical,digitalSignature extendedKeyUsage=clientAuth >"$work/extensions"
openssl x509 -req -in "$work/request" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -set_serial 77 -days 9 -sha256 -extfile "$work/extensions" \
    -out "$work/new.crt" 2>/dev/null
reseal provider certificate vault --cert "$work/new.crt" >"$work/out"
grep -q 'O=Example' "$work/out" || fail "$(cat "$work/out")"
[ "$(reseal key status "$alices")" = "available, in memory" ] || fail "alice has her key again"
event com.vmware.vc.vecs.KMSClientCertExpirationEvent 'expires on'

# Written down too: a new reseal-keyd uses the same.
[ "$(keyd_pid)" = "$old" ] || fail "it was restarted"
kill -KILL "$old"
for _ in $(seq 1200); do
    now=$(keyd_pid)
    [ -n "$now" ] && [ "$now" != "$old" ] && reseal key list >"$work/list" 2>/dev/null && break
    sleep 0.05
done
reseal key status "$alices" >/dev/null
reseal provider list --json >"$work/shown"
grep -q 'PRIVATE KEY' "$work/shown" && fail "a private key is shown"
grep -rq 'PRIVATE KEY' "$RESEAL_RUNTIME_DIR/state" && fail "a private key lies in the state folder"
openssl x509 -in "$pki/bob.crt" -noout -enddate >/dev/null
refused 1 'has expired' reseal provider certificate vault --cert "$pki/expired.crt" --key "$pki/expired.key"

# Nobody asks for a key any more: a provider is looked at all the same, once a day; here every second.
service_stop
journal=$RESEAL_RUNTIME_DIR/state/events.jsonl
told() { grep -c 'KMSClientCertExpirationEvent.*"provider":"vault"' "$journal" || true; }
before=$(told)
export RESEAL_KEYD_LOOK=1
service_start </dev/null >"$work/reseald.log" 2>&1
for _ in $(seq 1200); do
    [ "$(told)" -gt "$before" ] && break
    sleep 0.05
done
[ "$(told)" -gt "$before" ] || fail "the end of a certificate is told only when somebody asks for a key"
kmip_kill "$port"
event com.vmware.vc.kms.crypto.Unreachable "127.0.0.1:$port"
