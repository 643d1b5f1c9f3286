#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Events are posted to a real HTTPS server: signed, in order, again after a failure, and only to one whose certificate verifies.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
[ -x /usr/bin/python3 ] || { echo "no python3"; exit 77; }

server_pid=
cleanup() {
    local status=$?
    set +e
    [ -z "$server_pid" ] || kill -KILL "$server_pid" 2>/dev/null || true
    (exit $status)
    service_cleanup
}
trap cleanup EXIT
until_true() {
    local text=$1 tries=0
    shift
    until "$@" >"$work/tried" 2>&1; do
        [ $((tries += 1)) -lt 600 ] || fail "$text: $(cat "$work/tried" "$work/server.log" "$work/reseald.log")"
        sleep 0.1
    done
}

for ca in ca other; do
    openssl ecparam -genkey -name prime256v1 -noout -out "$work/$ca.key"
    openssl req -x509 -new -key "$work/$ca.key" -sha256 -days 30 -subj "/CN=Test $ca" -out "$work/$ca.crt" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
done
openssl ecparam -genkey -name prime256v1 -noout -out "$work/server.key"
openssl req -new -key "$work/server.key" -subj /CN=localhost -out "$work/request"
printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n' >"$work/extensions"
openssl x509 -req -in "$work/request" -CA "$work/ca.crt" -CAkey "$work/ca.key" -CAcreateserial -days 30 -sha256 \
    -extfile "$work/extensions" -out "$work/server.crt" 2>/dev/null

# Refuses the first two deliveries; keeps body and headers of the others.
cat >"$work/server.py" <<'P'
import http.server, os, ssl, sys
work = sys.argv[1]
seen = 0
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        global seen
        body = self.rfile.read(int(self.headers["Content-Length"]))
        seen += 1
        if seen > 2:
            name = "%s/got-%03d" % (work, seen)
            with open(name + ".head", "w") as f:
                f.write("%s\n%s\n" % (self.headers.get("X-Reseal-Timestamp"), self.headers.get("X-Reseal-Signature")))
            with open(name + ".new", "wb") as f:
                f.write(body)
            os.rename(name + ".new", name + ".json")
        self.send_response(204 if seen > 2 else 503)
        self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(work + "/server.crt", work + "/server.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
with open(work + "/port.new", "w") as f:
    f.write(str(server.server_port))
os.rename(work + "/port.new", work + "/port")
server.serve_forever()
P
/usr/bin/python3 "$work/server.py" "$work" </dev/null >"$work/server.log" 2>&1 &
server_pid=$!
until_true "the receiver does not start" test -e "$work/port"
url=https://127.0.0.1:$(cat "$work/port")/reseal
openssl rand -hex 32 >"$work/secret"
chmod 600 "$work/secret"

service_start </dev/null >"$work/reseald.log" 2>&1
refused() { # refused TEXT ARGUMENTS...
    local text=$1 out
    shift
    out=$(reseal events webhook "$@" 2>&1) && fail "taken: $*"
    case $out in *"$text"*) ;; *) fail "$*: $out" ;; esac
}
refused 'by https only' http://example.org/hook
refused 'by https only' http://127.example.org/hook
refused 'user name' https://me:secret@example.org/hook
printf 'short' >"$work/short"
refused 'at least 16 bytes' "$url" --secret-file "$work/short"
reseal events webhook | grep -q '^no webhook' || fail "there is one"

# The receiver keeps a delivery before it answers.
all_delivered() { reseal events webhook | grep -q ', signed, 0 waiting'; }

# A certificate of another CA: nothing is delivered, and it is said.
reseal events webhook "$url" --ca "$work/other.crt"
reseal provider add one --native >/dev/null
until_true "it is not said what is wrong" bash -c "reseal events webhook | grep -qi 'does not take them:.*certificate'"
[ ! -e "$work/got-003.json" ] || fail "delivered to one who cannot be trusted"

# With the right one all comes, after two refusals.
reseal events webhook "$url" --ca "$work/ca.crt" --secret-file "$work/secret"
until_true "nothing comes" test -e "$work/got-003.json"
grep -q '"id":"com.vmware.vc.kms.crypto.NotBackedUp"' "$work/got-003.json" || fail "$(cat "$work/got-003.json")"
grep -q '"lost":0' "$work/got-003.json" || fail "some are lost"
{ read -r when && read -r signature; } <"$work/got-003.head"
key=$(od -An -tx1 <<<"$(tr -d '\n' <"$work/secret")" | tr -d ' \n' | sed 's/0a$//')
want=$({ printf '%s.' "$when"; cat "$work/got-003.json"; } | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" | sed 's/.* //')
[ "$signature" = "sha256=$want" ] || fail "signature $signature, not $want"
grep -rqF "$(tr -d '\n' <"$work/secret")" "$RESEAL_RUNTIME_DIR" && fail "the secret lies in the state folder"

# It goes on after a restart, and each event comes once.
until_true "what came is not known to have come" all_delivered
service_stop
service_start </dev/null >>"$work/reseald.log" 2>&1
reseal provider add two --native >/dev/null
until_true "nothing comes after a restart" bash -c "cat '$work'/got-*.json | grep -q 'provider two'"
[ "$(cat "$work"/got-*.json | grep -o '"provider":"one"' | wc -l)" -eq 1 ] || fail "an event came twice"
until_true "what came is not known to have come" all_delivered
reseal events webhook --remove
reseal events webhook | grep -q '^no webhook' || fail "it is still there"
exit 0
