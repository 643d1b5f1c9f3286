#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A key server that wants a user and a password beside the certificate: right, wrong and missing ones, and where the password is never
# seen. The server is PyKMIP with a wrapper of our own (tests/support/pykmip-login.py), since PyKMIP itself ignores both.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/kmip.sh"

password='correct Horse:battery staple'
export PYKMIP_LOGIN=$work/login
umask 077
printf 'vault-client %s\n' "$password" >"$PYKMIP_LOGIN"
printf '%s\n' "$password" >"$work/right"
printf 'a wrong one of them\n' >"$work/wrong"
port=$(kmip_port)
kmip_start "$port" '' "$RESEAL_SOURCE/tests/support/pykmip-login.py"
unset PYKMIP_LOGIN
service_start </dev/null >"$work/reseald.log" 2>&1
where=(--server "127.0.0.1:$port" --ca "$pki/ca.crt" --cert "$pki/alice.crt" --key "$pki/alice.key" --timeout 30)

reseal provider add none "${where[@]}" >/dev/null
refused 1 'it does not accept our certificate alone: if it wants a user and a password, give them with --user' reseal provider test none
refused 3 'it does not accept our certificate alone' reseal key make --provider none
event com.vmware.vc.kms.crypto.KeyGenerateFail 'our certificate alone'
refused 4 'NoPermissionToAccessKeyProvider: key server 127.0.0.1: it does not accept our certificate alone' reseal key status 1 --provider none
event com.vmware.vc.kms.crypto.SendKeyError.KMSClusterError '"reason":"NoPermissionToAccessKeyProvider"'

reseal provider add vault "${where[@]}" --user vault-client --password-file "$work/wrong" >/dev/null
refused 1 'it does not accept our user and password: give others with --user' reseal provider test vault
refused 3 'it does not accept our user and password' reseal key make --provider vault
reseal provider update vault --user somebody --password-file "$work/right" >/dev/null
refused 1 'it does not accept our user and password' reseal provider test vault

for version in auto 1.0 1.1 1.2 1.3 1.4; do
    reseal provider update vault --user vault-client --password-file "$work/right" --kmip $version >"$work/updated"
    reseal provider test vault | grep -q ' ok .*KMIP 1' || fail "the right ones are refused in $version"
    key=$(reseal key make --provider vault)
    reseal key forget >/dev/null
    [ "$(reseal key status "$key" --provider vault)" = "available, in memory" ] || fail "a key in $version"
done
# The password stays where only the user changes, and both where something else does.
reseal provider update vault --cache 100 >/dev/null
reseal provider test vault >/dev/null
# Not where it would go to another server.
refused 1 'give it again' reseal provider update vault --server "127.0.0.1:$port" --server 127.0.0.2 --ca "$pki/ca.crt"
reseal provider update vault --server "127.0.0.1:$port" --server 127.0.0.2 --ca "$pki/ca.crt" --user vault-client --password-file "$work/right" >/dev/null
reseal provider update vault --server "127.0.0.1:$port" --ca "$pki/ca.crt" >/dev/null
reseal provider test vault >/dev/null

# Nobody sees it: not in what is shown, written or logged, nor in arguments or environments.
reseal provider list --json >"$work/listed"
grep -q 'vault-client' "$work/listed" || fail "the user is shown"
for place in "$work/listed" "$work/updated" "$work/reseald.log" "$RESEAL_RUNTIME_DIR"; do
    ! grep -rqF -- "$password" "$place" || fail "the password is in $place"
done
for pid in "$service_pid" $(cat "/proc/$service_pid/task/$service_pid/children"); do
    for file in cmdline environ; do
        ! grep -qaF -- "$password" "/proc/$pid/$file" 2>/dev/null || fail "the password is in $file of $(cat "/proc/$pid/comm")"
    done
done
refused 1 'a password came without a user' reseal provider add x "${where[@]}" --password-file "$work/right"
