#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What goes wrong between a standard provider and its key server has a message and an event of its own: keys that are missing,
# not active, of another length or another's, and servers that are not the right one.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/kmip.sh"

missing=com.vmware.vc.kms.crypto.SendKeyError.KeyMissingOnKMS
broken=com.vmware.vc.kms.crypto.SendKeyError.KMSClusterError
port=$(kmip_port)
kmip_start "$port"
service_start </dev/null >"$work/reseald.log" 2>&1
client=(--cert "$pki/alice.crt" --key "$pki/alice.key" --timeout 30)
reseal provider add vault --server "127.0.0.1:$port" --ca "$pki/ca.crt" "${client[@]}" >/dev/null

# ---- keys
kmip_do alice "
A, B = enums.CryptographicAlgorithm.AES, enums.RevocationReasonCode
mask = [enums.CryptographicUsageMask.ENCRYPT, enums.CryptographicUsageMask.DECRYPT]
def make(bits, active=True):
    k = c.create(A, bits, cryptographic_usage_mask=mask)
    if active: c.activate(k)
    return k
inactive, short, gone, bad = make(256, False), make(128), make(256), make(256)
c.revoke(B.CESSATION_OF_OPERATION, gone); c.destroy(gone)
c.revoke(B.KEY_COMPROMISE, bad)
print(inactive, short, gone, bad)" >"$work/keys"
kmip_do bob "
k = c.create(enums.CryptographicAlgorithm.AES, 256, cryptographic_usage_mask=[enums.CryptographicUsageMask.ENCRYPT])
c.activate(k)
print(k)" >"$work/bobs"
read -r inactive short gone bad <"$work/keys"
bobs=$(cat "$work/bobs")

refused 4 'KeyStateMissingInKMS: key server 127.0.0.1: asking for the key'"'"'s state: item not found' reseal key status 999999
event $missing 999999
refused 4 'KeyStateNotActiveOrEnabled: key server 127.0.0.1: the key is not active yet: activate or replace it' reseal key status "$inactive"
event $missing '"reason":"KeyStateNotActiveOrEnabled"'
refused 4 'the key is compromised' reseal key status "$bad"
refused 4 'KeyStateMissingInKMS' reseal key status "$gone"
event $missing "\"key\":\"$gone\""
refused 4 'not an AES key of the length' reseal key status "$short"
refused 4 'NoPermissionToAccessKeyProvider: key server 127.0.0.1: asking for the key'"'"'s state: permission denied' reseal key status "$bobs"
event $broken '"reason":"NoPermissionToAccessKeyProvider"'
refused 4 "there is no key provider 'nowhere': add it again under that name" reseal key status 1 --provider nowhere
event $broken nowhere
refused 4 'no key server has a key with an id of' reseal key status "$(printf '%0300d' 7)"

# ---- servers
refused 1 'there is a key provider vault already' reseal provider add vault --server localhost --ca "$pki/ca.crt"
refused 1 'none of a CA' reseal provider add x --server localhost --ca "$pki/bob.crt"
refused 4 'is not that of the certificate' reseal provider add x --server localhost --ca "$pki/ca.crt" --cert "$pki/alice.crt" --key "$pki/bob.key"
refused 1 'a port is a number' reseal provider add x --server localhost:0 --ca "$pki/ca.crt"
refused 1 '64 hexadecimal digits' reseal provider add x --server localhost --fingerprint 1234

reseal provider add other-ca --server "127.0.0.1:$port" --ca "$pki/other-ca.crt" "${client[@]}" >/dev/null
refused 1 'is not from a CA that is trusted' reseal provider test other-ca
event $broken 'is not from a CA'
refused 1 'is not from a CA that is trusted' reseal key make --provider other-ca
event com.vmware.vc.kms.crypto.KeyGenerateFail other-ca

reseal provider add no-name --server no-such-host.invalid --ca "$pki/ca.crt" "${client[@]}" >/dev/null
refused 1 'check the name and the resolver' reseal provider test no-name
event com.vmware.vc.kms.crypto.Unreachable no-such-host.invalid

reseal provider add nobody --server "127.0.0.1:$port" --ca "$pki/ca.crt" --timeout 30 >/dev/null
refused 1 'wants a client certificate, and there is none yet' reseal provider test nobody

reseal provider add pinned --server "127.0.0.1:$port" --yes "${client[@]}" >/dev/null 2>"$work/shown"
grep -q 'CN=localhost' "$work/shown" || fail "the certificate is shown"
reseal provider test pinned >/dev/null
pin=$(sed -n 's/^  \(\([0-9a-f]\{2\}:\)\{31\}[0-9a-f]\{2\}\)$/\1/p' "$work/shown")
reseal provider add known --server "127.0.0.1:$port" --fingerprint "$pin" "${client[@]}" >/dev/null
reseal provider test known >/dev/null
reseal provider add unknown --server "127.0.0.1:$port" --fingerprint "${pin%??}00" "${client[@]}" >/dev/null
refused 1 "shows another certificate than the confirmed one" reseal provider test unknown
reseal provider trust unknown --yes >/dev/null 2>&1
reseal provider test unknown >/dev/null

for kind in wrong-name expired; do
    kmip_kill "$port"
    kmip_start "$port" $kind
    [ $kind = wrong-name ] && refused 1 'its certificate is for another name' reseal provider test vault
    [ $kind = expired ] && refused 1 'certificate has expired' reseal provider test vault
    reseal provider update vault --timeout 30 >/dev/null # what is known of its servers begins anew
done
event com.vmware.vc.vecs.KMSServerCertExpirationEvent 'certificate has expired'
event $broken 'for another name'
