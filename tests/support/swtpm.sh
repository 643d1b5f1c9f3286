#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# swtpm.sh FOLDER NAME [CA]: a TPM 2.0 of its own (swtpm), with an endorsement certificate of a CA in FOLDER ("ca" by default),
# on the socket FOLDER/NAME.sock, until it is killed. State stays in FOLDER/NAME: started again, it is the same TPM, reset.
# FOLDER/CA.pem are the certificates to trust.
set -eu
dir=$1 name=$2 ca=${3:-ca}
umask 077
mkdir -p "$dir/$ca" "$dir/$name"

if [ ! -e "$dir/$name/ready" ]; then
    cat >"$dir/$ca/localca.conf" <<C
statedir = $dir/$ca
signingkey = $dir/$ca/signkey.pem
issuercert = $dir/$ca/issuercert.pem
certserial = $dir/$ca/certserial
C
    printf '%s\n' '--platform-manufacturer Reseal' '--platform-version 1' '--platform-model Test' >"$dir/$ca/options"
    cat >"$dir/$ca/setup.conf" <<C
create_certs_tool=/usr/bin/swtpm_localca
create_certs_tool_config=$dir/$ca/localca.conf
create_certs_tool_options=$dir/$ca/options
active_pcr_banks=sha256
C
    swtpm_setup --tpm2 --tpm-state "$dir/$name" --config "$dir/$ca/setup.conf" --create-ek-cert --create-platform-cert \
        --lock-nvram --overwrite >"$dir/$name.setup.log" 2>&1 || { cat "$dir/$name.setup.log" >&2; exit 1; }
    cat "$dir/$ca/issuercert.pem" "$dir/$ca/swtpm-localca-rootca-cert.pem" >"$dir/$ca.pem"
    touch "$dir/$name/ready"
fi
# What made its state may hold the lock on it for a moment longer; swtpm would listen, and then give up.
while pgrep -f "^[^ ]*swtpm socket .*$dir/$name( |\$)" >/dev/null; do sleep 0.02; done
rm -f "$dir/$name.sock" "$dir/$name.sock.ctrl"
exec swtpm socket --tpm2 --tpmstate "dir=$dir/$name" \
    --server "type=unixio,path=$dir/$name.sock,mode=0600" --ctrl "type=unixio,path=$dir/$name.sock.ctrl,mode=0600" \
    --flags not-need-init,startup-clear --seccomp action=kill >>"$dir/$name.log" 2>&1
