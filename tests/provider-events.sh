#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The table of what goes wrong between a standard provider and its key server (docs/key-servers.md): each row has its message, exit
# code, event and reason, and an event of its own in the journal.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/kmip.sh"

port=$(kmip_port)
kmip_start "$port"
service_start </dev/null >"$work/reseald.log" 2>&1
journal=$RESEAL_RUNTIME_DIR/state/events.jsonl
touch "$journal"
kms=com.vmware.vc.kms.crypto
missing=$kms.SendKeyError.KeyMissingOnKMS
broken=$kms.SendKeyError.KMSClusterError

# fresh EVENT TEXT...: such a line came since `row` began; it waits for it
fresh() {
    local tries=0 lines
    while true; do
        lines=$(tail -n "+$((seen + 1))" "$journal" | grep -F "\"id\":\"$1\"") || true
        for text in "${@:2}"; do lines=$(grep -F -- "$text" <<<"$lines") || true; done
        [ -z "$lines" ] || return 0
        [ $((tries += 1)) -lt 1200 ] || { tail -n "+$((seen + 1))" "$journal"; fail "no event $*"; }
        sleep 0.05
    done
}
# row EXIT REASON MESSAGE EVENT COMMAND...
row() {
    local code=$1 reason=$2 message=$3 id=$4
    shift 4
    seen=$(wc -l <"$journal")
    refused "$code" "$message" "$@"
    fresh "$id" "$message" ${reason:+"\"reason\":\"$reason\""}
}
status() { reseal key status "$@"; }
add() { # add NAME PORT TRUST... CLIENT: a provider; CLIENT is the name of its certificate
    local name=$1 to=$2 client=${*: -1}
    reseal provider add "$name" --server "127.0.0.1:$to" "${@:3:$#-3}" --cert "$pki/$client.crt" --key "$pki/$client.key" --timeout 30 >/dev/null
}
ca=(--ca "$pki/ca.crt")

# ---- keys
add vault "$port" "${ca[@]}" alice
kmip_do alice "
A, R = enums.CryptographicAlgorithm, enums.RevocationReasonCode
mask = [enums.CryptographicUsageMask.ENCRYPT, enums.CryptographicUsageMask.DECRYPT]
def make(bits=256, algorithm=A.AES, active=True):
    k = c.create(algorithm, bits, cryptographic_usage_mask=mask)
    if active: c.activate(k)
    return k
new, old, bad, gone, short, des = make(active=False), make(), make(), make(), make(128), make(192, A.TRIPLE_DES)
c.revoke(R.CESSATION_OF_OPERATION, old)
c.revoke(R.KEY_COMPROMISE, bad)
c.revoke(R.CESSATION_OF_OPERATION, gone); c.destroy(gone)
print(new, old, bad, gone, short, des)" >"$work/keys"
kmip_do bob "
k = c.create(enums.CryptographicAlgorithm.AES, 256, cryptographic_usage_mask=[enums.CryptographicUsageMask.ENCRYPT])
c.activate(k)
print(k)" >"$work/bobs"
read -r new old bad gone short des <"$work/keys"
bobs=$(cat "$work/bobs")
inactive='activate or replace it'
row 4 KeyStateMissingInKMS "key server 127.0.0.1: asking for the key's state: item not found" $missing status 999999
row 4 KeyStateMissingInKMS "key server 127.0.0.1: asking for the key's state: item not found" $missing status "$gone"
row 4 KeyStateNotActiveOrEnabled "the key is not active yet: $inactive" $missing status "$new"
row 4 KeyStateNotActiveOrEnabled "the key is deactivated: $inactive" $missing status "$old"
row 4 KeyStateNotActiveOrEnabled "the key is compromised: $inactive" $missing status "$bad"
row 4 KeyStateNotActiveOrEnabled 'the key is not an AES key of the length that was asked for' $missing status "$short"
row 4 KeyStateNotActiveOrEnabled 'the key is not an AES key of the length that was asked for' $missing status "$des"
row 4 NoPermissionToAccessKeyProvider "asking for the key's state: permission denied" $broken status "$bobs"
good=$(reseal key make)
reseal key forget >/dev/null

# ---- certificates
leaf() { # leaf NAME CA SECONDS: a client's certificate
    /usr/bin/python3 - "$pki" "$@" <<'P'
import datetime, os, sys
os.umask(0o077)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization as s
from cryptography.hazmat.primitives.asymmetric import ec
pki, name, ca, seconds = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
issuer = x509.load_pem_x509_certificate(open(f"{pki}/{ca}.crt", "rb").read())
signer = s.load_pem_private_key(open(f"{pki}/{ca}.key", "rb").read(), None)
key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.utcnow()
cert = (x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(seconds=seconds))
        .add_extension(x509.BasicConstraints(False, None), True)
        .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CLIENT_AUTH]), False).sign(signer, hashes.SHA256()))
open(f"{pki}/{name}.key", "wb").write(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.TraditionalOpenSSL, s.NoEncryption()))
open(f"{pki}/{name}.crt", "wb").write(cert.public_bytes(s.Encoding.PEM))
P
}
leaf stranger other-ca 86400
add stranger "$port" "${ca[@]}" stranger
row 4 KeyStateClusterInvalid 'key server 127.0.0.1 does not accept our client certificate' $broken status "$good" --provider stranger
row 1 '' 'does not accept our client certificate' $kms.KeyGenerateFail reseal key make --provider stranger
reseal provider add nobody --server "127.0.0.1:$port" "${ca[@]}" --timeout 30 >/dev/null
row 4 KeyStateClusterInvalid 'wants a client certificate, and there is none yet' $broken status "$good" --provider nobody
add other-ca "$port" --ca "$pki/other-ca.crt" alice
row 4 KeyStateClusterInvalid 'its certificate is not from a CA that is trusted' $broken status "$good" --provider other-ca
add pinned "$port" --fingerprint "$(printf '%064d' 7)" alice
row 4 KeyStateClusterInvalid 'shows another certificate than the confirmed one' $broken status "$good" --provider pinned

# One that ends while it is in use. The service takes no expired one, so it has to end here; on a slow machine later.
for seconds in 4 16 64; do
    leaf ends ca $seconds
    add ends "$port" "${ca[@]}" ends 2>/dev/null && break
done
while openssl x509 -in "$pki/ends.crt" -noout -checkend 0 >/dev/null; do sleep 0.1; done
row 4 KeyStateClusterInvalid 'certificate expired): have it renewed' $broken status "$good" --provider ends
fresh com.vmware.vc.vecs.KMSClientCertExpirationEvent 'the client of key provider ends expired on'
refused 1 'the client certificate has expired' add late "$port" "${ca[@]}" ends

for kind in wrong-name expired; do
    kmip_kill "$port"
    kmip_start "$port" $kind
    reseal provider update vault --timeout 30 >/dev/null # what is known of its servers begins anew
    if [ $kind = wrong-name ]; then
        row 4 KeyStateClusterInvalid 'its certificate is for another name' $broken status "$good"
    else
        row 4 KeyStateClusterInvalid 'certificate has expired' $broken status "$good"
        fresh com.vmware.vc.vecs.KMSServerCertExpirationEvent "127.0.0.1:$port"
    fi
done

# ---- servers
kmip_kill "$port"
reseal provider update vault --timeout 30 >/dev/null
row 4 KeyStateClusterUnreachable 'Connection refused: check that it runs and the port is right' $broken status "$good"
fresh $kms.Unreachable "127.0.0.1:$port"
row 7 '' 'Connection refused' $kms.KeyGenerateFail reseal key make
reseal provider add nowhere --server no-such-host.invalid "${ca[@]}" --timeout 30 >/dev/null
row 4 KeyStateClusterUnreachable 'check the name and the resolver' $broken status "$good" --provider nowhere
fresh $kms.Unreachable no-such-host.invalid

# Listens, and nobody accepts: the connection is there and nothing comes.
mkfifo "$work/port"
/usr/bin/python3 -c '
import socket, time
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(16)
print(s.getsockname()[1], flush=True)
time.sleep(600)' >"$work/port" </dev/null 2>/dev/null &
helpers+=($!)
read -r silent <"$work/port"
add silent "$silent" "${ca[@]}" alice
reseal provider update silent --timeout 1 >/dev/null
row 4 KeyStateClusterUnreachable 'does not answer in time' $broken status "$good" --provider silent
fresh $kms.Unreachable "127.0.0.1:$silent" 'does not answer in time'
row 7 '' 'does not answer in time' $kms.KeyGenerateFail reseal key make --provider silent

# One with the right certificate and wrong answers: not KMIP, none at all, and cut in the middle.
cat >"$work/broken.py" <<'P'
import socket, ssl, sys, threading
pki = sys.argv[1]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(pki + "/server.crt", pki + "/server.key")
context.load_verify_locations(pki + "/ca.crt")
context.verify_mode = ssl.CERT_REQUIRED
def serve(s, answer):
    while True:
        c = s.accept()[0]
        try:
            with context.wrap_socket(c, server_side=True) as t:
                length = int.from_bytes(t.read(8)[4:8], "big")
                while length > 0: length -= len(t.read(length))
                t.sendall(answer)
        except (OSError, ValueError): pass
for answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", bytes.fromhex("42007b01000000a842007a01")):
    s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(16)
    print(s.getsockname()[1], end=" ")
    threading.Thread(target=serve, args=(s, answer)).start()
print(flush=True)
P
/usr/bin/python3 "$work/broken.py" "$pki" >"$work/port" </dev/null 2>/dev/null &
helpers+=($!)
read -r other mute cut <"$work/port"
lost='it may have done what was asked: look there before you try again'
add other "$other" "${ca[@]}" alice
row 4 KeyStateClusterInvalid 'what it sends is not KMIP, or too long' $broken status "$good" --provider other
for which in mute cut; do
    add $which "${!which}" "${ca[@]}" alice
    row 4 KeyStateClusterUnreachable 'closed the connection' $broken status "$good" --provider $which
    fresh $kms.Unreachable "127.0.0.1:${!which}"
    reseal provider update $which --kmip 1.1 >/dev/null # so that no question about versions comes first
    row 7 '' "$lost" $kms.KeyGenerateFail reseal key make --provider $which
done
reseal provider update other --kmip 1.1 >/dev/null
row 7 '' "$lost" $kms.KeyGenerateFail reseal key make --provider other

# And all is well again: also behind all of these, in the order that was said.
kmip_start "$port"
reseal provider update vault --server "127.0.0.1:$other" --server "127.0.0.1:$mute" --server "127.0.0.1:$cut" --server "127.0.0.1:$port" \
    "${ca[@]}" >/dev/null
[ "$(status "$good")" = "available, in memory" ] || fail "the next server is not asked"
reseal key forget >/dev/null
reseal provider update vault --server "127.0.0.1:$port" "${ca[@]}" >/dev/null
[ "$(status "$good")" = "available, in memory" ] || fail "the key is not there again"
# So that the same failure is news.
reseal key forget >/dev/null
kmip_kill "$port"
row 4 KeyStateClusterUnreachable 'Connection refused: check that it runs and the port is right' $broken status "$good"
