#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: pykmip.sh FOLDER PORT
# Makes a CA, a server's certificate and some for clients in FOLDER (once), and
# becomes the PyKMIP server of Debian's python3-pykmip on 127.0.0.1:PORT.
# Left in FOLDER: ca.crt other-ca.crt, and for each of server, expired, wrong-name, alice, bob: NAME.crt NAME.key.
# PYKMIP_CERT=NAME: the server shows that certificate instead. PYKMIP_PROGRAM: another program that takes its options.
set -eu
dir=$1 port=$2
umask 077
mkdir -p "$dir/policy"

ca() {
    openssl ecparam -genkey -name prime256v1 -noout -out "$dir/$1.key"
    openssl req -x509 -new -key "$dir/$1.key" -sha256 -days 30 -subj "/CN=$2" -out "$dir/$1.crt" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
}

# leaf NAME CN USAGE ALTERNATIVE-NAMES [OPTIONS OF x509]
leaf() {
    local name=$1 cn=$2 usage=$3 alt=$4
    shift 4
    openssl ecparam -genkey -name prime256v1 -noout -out "$dir/$name.key"
    printf '%s\n' basicConstraints=CA:FALSE keyUsage=critical,digitalSignature "extendedKeyUsage=$usage" \
        "subjectAltName=$alt" >"$dir/extensions"
    openssl req -new -key "$dir/$name.key" -subj "/CN=$cn" -out "$dir/request"
    openssl x509 -req -in "$dir/request" -CA "$dir/ca.crt" -CAkey "$dir/ca.key" -CAcreateserial -sha256 \
        -extfile "$dir/extensions" -out "$dir/$name.crt" "$@" 2>/dev/null
}

if [ ! -e "$dir/ready" ]; then
    here=DNS:localhost,IP:127.0.0.1
    ca ca "Test KMIP CA"
    ca other-ca "Another CA"
    leaf server localhost serverAuth "$here" -days 30
    leaf wrong-name elsewhere.invalid serverAuth DNS:elsewhere.invalid -days 30
    leaf expired localhost serverAuth "$here" -not_before 20200101000000Z -not_after 20200201000000Z 2>/dev/null ||
        leaf expired localhost serverAuth "$here" -days -1
    leaf alice alice clientAuth DNS:alice -days 30
    leaf bob bob clientAuth DNS:bob -days 30
    # Bob may get what was made under this policy, and not destroy it.
    cat >"$dir/policy/team.json" <<'P'
{"team": {"preset": {"SYMMETRIC_KEY": {"LOCATE": "ALLOW_ALL", "GET": "ALLOW_ALL", "GET_ATTRIBUTES": "ALLOW_ALL",
  "ACTIVATE": "ALLOW_OWNER", "REVOKE": "ALLOW_OWNER", "DESTROY": "ALLOW_OWNER", "MODIFY_ATTRIBUTE": "ALLOW_OWNER"}}}}
P
    touch "$dir/ready"
fi

cert=${PYKMIP_CERT:-server}
cat >"$dir/server-$port.conf" <<C
[server]
hostname=127.0.0.1
port=$port
certificate_path=$dir/$cert.crt
key_path=$dir/$cert.key
ca_path=$dir/ca.crt
auth_suite=TLS1.2
policy_path=$dir/policy
enable_tls_client_auth=True
tls_cipher_suites=
logging_level=WARNING
database_path=$dir/kmip.db
C
# The full path: another python3 may be first in PATH, without the module.
exec /usr/bin/python3 -W ignore "${PYKMIP_PROGRAM:-/usr/bin/pykmip-server}" -f "$dir/server-$port.conf" -l "$dir/server-$port.log"
