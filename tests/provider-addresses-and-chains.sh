#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Key servers by IPv6 address and by a name with several addresses, the first of which says nothing; certificates with an
# intermediate CA on either side, also where only that one is given as the CA; names of VMs that are not ASCII.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/kmip.sh"

port=$(kmip_port)
kmip_start "$port"
make() { # make NAME CN CA EXTENSIONS...
    openssl ecparam -genkey -name prime256v1 -noout -out "$pki/$1.key"
    printf '%s\n' "${@:4}" >"$pki/$1.ext"
    openssl req -new -key "$pki/$1.key" -subj "/CN=$2" -out "$pki/$1.csr"
    openssl x509 -req -in "$pki/$1.csr" -CA "$pki/$3.crt" -CAkey "$pki/$3.key" -CAcreateserial -days 5 -sha256 -extfile "$pki/$1.ext" \
        -out "$pki/$1.crt" 2>/dev/null
}
make middle 'Issuing CA' ca basicConstraints=critical,CA:TRUE keyUsage=critical,keyCertSign
make leaf localhost middle basicConstraints=CA:FALSE keyUsage=critical,digitalSignature extendedKeyUsage=serverAuth \
    subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1
make carol carol middle basicConstraints=CA:FALSE keyUsage=critical,digitalSignature extendedKeyUsage=clientAuth subjectAltName=DNS:carol
cat "$pki/leaf.crt" "$pki/middle.crt" >"$pki/chain.crt" && cp "$pki/leaf.key" "$pki/chain.key"
cat "$pki/carol.crt" "$pki/middle.crt" >"$pki/carol-chain.crt"
chained=$(kmip_port)
kmip_start "$chained" chain

# PyKMIP knows IPv4 only: what comes to another address goes on to it.
cat >"$work/relay.py" <<'P'
import socket, sys, threading
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
s = socket.socket(family); s.bind((sys.argv[1], int(sys.argv[2]))); s.listen(); print(s.getsockname()[1], flush=True)
def pump(a, b):
    try:
        while (x := a.recv(65536)): b.sendall(x)
        b.shutdown(1)
    except OSError: pass
while True:
    c = s.accept()[0]; u = socket.create_connection(("127.0.0.1", int(sys.argv[3])))
    for x, y in ((c, u), (u, c)): threading.Thread(target=pump, args=(x, y), daemon=True).start()
P
relay() { # relay ADDRESS PORT: to the server with the chain; its port in $relayed
    rm -f "$work/relayed" && mkfifo "$work/relayed"
    /usr/bin/python3 "$work/relay.py" "$1" "$2" "$chained" >"$work/relayed" </dev/null 2>/dev/null &
    helpers+=($!)
    read -r relayed <"$work/relayed" || relayed=
}
alice=(--cert "$pki/alice.crt" --key "$pki/alice.key" --timeout 30)
service_start </dev/null >"$work/reseald.log" 2>&1

reseal provider add chain --server "127.0.0.1:$chained" --ca "$pki/ca.crt" "${alice[@]}" >/dev/null
reseal provider test chain | grep -q ' ok ' || fail "a server with an intermediate CA"
reseal provider add issuing --server "127.0.0.1:$chained" --ca "$pki/middle.crt" "${alice[@]}" >/dev/null
reseal provider test issuing | grep -q ' ok ' || fail "only the issuing CA is given"
reseal provider add carol --server "127.0.0.1:$port" --ca "$pki/ca.crt" --cert "$pki/carol-chain.crt" --key "$pki/carol.key" --timeout 30 >/dev/null
reseal provider test carol | grep -q ' ok ' || fail "a client certificate with its chain"
reseal provider add alone --server "127.0.0.1:$port" --ca "$pki/ca.crt" --cert "$pki/carol.crt" --key "$pki/carol.key" --timeout 30 >/dev/null
refused 1 'does not accept our client certificate' reseal provider test alone
reseal provider add another --server "127.0.0.1:$port" --ca "$pki/middle.crt" "${alice[@]}" >/dev/null
refused 1 'not from a CA that is trusted' reseal provider test another # its certificate is of the root, which was not given

relay ::1 0
if [ -n "$relayed" ]; then
    reseal provider add six --server "[::1]:$relayed" --ca "$pki/ca.crt" "${alice[@]}" >/dev/null
    reseal provider test six | grep -qF "[::1]:$relayed" || fail "an IPv6 address"
    reseal key status "$(reseal key make --provider six)" --provider six >/dev/null
fi
refused 1 'no name or address of a host' reseal provider add seven --server '[]:5696' --ca "$pki/ca.crt"
reseal provider add bare --server ::1 --ca "$pki/ca.crt" >/dev/null
reseal provider list | grep -qF '[::1]:5696' || fail "the port of a bare IPv6 address: $(reseal provider list)"

# PyKMIP takes no text beyond ASCII: the other texts are kept all the same.
key=$(reseal key make --provider chain --detail 'x-Component=Virtual Machine' --detail 'x-Name=Büro 中' --detail x-Identifier=17)
kmip_do alice "
t = str(c.get_attributes('$key', ['Application Specific Information'])[1][0])
for want in ('x-Vendor=Reseal', 'x-Component=Virtual Machine', 'x-Name=B?ro ?', 'x-Identifier=17'): assert want in t, t"
# A key id that it cannot read is no key in a wrong state.
refused 4 KeyStateClusterInvalid reseal key status 'Schlüssel' --provider chain
service_stop

# A name with two addresses: where the first says nothing the second gets its time.
full=$(kmip_port)
cat >"$work/full.py" <<'P'
import socket, sys, time
s = socket.socket(); s.bind(("127.0.0.1", int(sys.argv[1]))); s.listen(0)
kept = []
for i in range(8):
    c = socket.socket(); c.setblocking(False); kept.append(c)
    try: c.connect(s.getsockname())
    except BlockingIOError: pass
c = socket.socket(); c.settimeout(1)
try: c.connect(s.getsockname()); print("answers", flush=True)
except TimeoutError: print("silent", flush=True)
time.sleep(3600)
P
rm -f "$work/full" && mkfifo "$work/full"
/usr/bin/python3 "$work/full.py" "$full" >"$work/full" </dev/null 2>/dev/null &
helpers+=($!)
read -r how <"$work/full"
relay 127.0.0.2 "$full"
printf '127.0.0.1 localhost\n127.0.0.2 localhost\n' >"$work/hosts"
if [ "$(id -u)" -ne 0 ] || [ "$how" != silent ] || [ -z "$relayed" ] || ! unshare -m mount --bind "$work/hosts" /etc/hosts 2>/dev/null; then
    echo "no mount namespace, or no address that is silent: the rest is left out"
    exit 0
fi
rm -f "$work/ready" && mkfifo "$work/ready"
cat >"$work/inside" <<I
mount --bind "$work/hosts" /etc/hosts
exec "$RESEAL_BUILD/bin/reseald" --runtime-dir "$RESEAL_RUNTIME_DIR" --foreground --ready-fd 9
I
unshare -m bash "$work/inside" </dev/null >>"$work/reseald.log" 2>&1 9>"$work/ready" &
service_pid=$!
read -r _ <"$work/ready" || fail "the service does not start: $(cat "$work/reseald.log")"
reseal provider add both --server "localhost:$full" --ca "$pki/ca.crt" "${alice[@]}" >/dev/null
reseal key status "$(reseal key make --provider both)" --provider both >/dev/null || fail "the second address is not asked"
