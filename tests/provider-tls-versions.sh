#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Standard providers over mutual TLS 1.3: PyKMIP, which speaks 1.2 only, behind a stunnel that ends TLS 1.3, demands our certificate and
# goes on to the server with it. Refusals in TLS 1.3 come after the handshake: they are told as in 1.2. What speaks less is refused.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/kmip.sh"
for program in stunnel openssl; do
    command -v $program >/dev/null || { echo "$program is not installed"; exit 77; }
done

# front NAME LINES...: a stunnel in front of the server; its port in ${front[NAME]}
declare -A front=()
listening() { # listening PID COMMAND...: until it succeeds
    local pid=$1 tries=0
    shift
    until "$@"; do
        kill -0 "$pid" 2>/dev/null || fail "ended before: $*"
        [ $((tries += 1)) -lt 1200 ] || fail "never: $*"
        sleep 0.05
    done
}
front() {
    local name=$1
    shift
    printf '%s\n' "foreground = yes" "pid =" "syslog = no" "debug = info" "output = $work/$name.log" \
        "[out]" "client = yes" "accept = $work/$name.socket" "connect = 127.0.0.1:$port" "cert = $pki/alice.crt" "key = $pki/alice.key" \
        "CAfile = $pki/ca.crt" "verifyChain = yes" "sslVersion = TLSv1.2" \
        "[in]" "accept = 127.0.0.1:0" "connect = $work/$name.socket" "cert = $pki/server.crt" "key = $pki/server.key" "verifyChain = yes" \
        "sslVersionMin = TLSv1.3" "$@" >"$work/$name.conf"
    : >"$work/$name.log"
    stunnel "$work/$name.conf" </dev/null >"$work/$name.out" 2>&1 &
    helpers+=($!)
    listening $! grep -q 'bound to 127.0.0.1' "$work/$name.log"
    front[$name]=$(sed -n 's/.*bound to 127.0.0.1:\([0-9]*\).*/\1/p' "$work/$name.log" | head -n 1)
}

port=$(kmip_port)
kmip_start "$port"
front tls13 "CAfile = $pki/ca.crt"
front wrong-ca "CAfile = $pki/other-ca.crt"
service_start </dev/null >"$work/reseald.log" 2>&1
add() { # add NAME PORT OPTIONS...
    reseal provider add "$1" --server "127.0.0.1:$2" --ca "$pki/ca.crt" --timeout 30 "${@:3}" >/dev/null
}
alice=(--cert "$pki/alice.crt" --key "$pki/alice.key")

add vault "${front[tls13]}" "${alice[@]}"
reseal provider test vault >"$work/tested"
grep -q ' ok .*KMIP 1.1, TLSv1.3 TLS_' "$work/tested" || fail "not TLS 1.3: $(cat "$work/tested")"
for version in auto 1.0 1.4; do
    reseal provider update vault --kmip $version >/dev/null
    key=$(reseal key make --provider vault)
    reseal key forget >/dev/null
    [ "$(reseal key status "$key" --provider vault)" = "available, in memory" ] || fail "a key of KMIP $version through TLS 1.3"
done
reseal provider add shown --server "127.0.0.1:${front[tls13]}" --yes --timeout 30 "${alice[@]}" >/dev/null 2>&1
reseal provider test shown | grep -q TLSv1.3 || fail "with a confirmed certificate"

# Certificates are replaced without a restart here too: the terminator logs whose it saw.
old=$(keyd_pid)
reseal provider certificate vault --cert "$pki/bob.crt" --key "$pki/bob.key" >/dev/null
reseal provider test vault >/dev/null
grep -q 'CN=bob' "$work/tls13.log" || fail "the new certificate was not shown"
[ "$(keyd_pid)" = "$old" ] || fail "it was restarted"

# Refusals of TLS 1.3 come with the first answer. What changes nothing and what would make a key are told alike.
add nobody "${front[tls13]}"
refused 1 'wants a client certificate, and there is none yet' reseal provider test nobody
add stranger "${front[wrong-ca]}" "${alice[@]}"
refused 1 'does not accept our client certificate' reseal provider test stranger
refused 1 'does not accept our client certificate' reseal key make --provider stranger
event com.vmware.vc.kms.crypto.KeyGenerateFail 'does not accept our client certificate'
reseal provider update stranger --kmip 1.1 >/dev/null
refused 1 'does not accept our client certificate' reseal key make --provider stranger
refused 4 'KeyStateClusterInvalid: key server 127.0.0.1 does not accept our client certificate' reseal key status 1 --provider stranger
event com.vmware.vc.kms.crypto.SendKeyError.KMSClusterError 'does not accept our client certificate'

# Less than 1.2 is not spoken, and no cipher that hides nothing.
weak() { # weak NAME OPTIONS...: a server of openssl
    local name=$1
    front[$name]=$(kmip_port)
    shift
    openssl s_server -accept "127.0.0.1:${front[$name]}" -cert "$pki/server.crt" -key "$pki/server.key" -quiet "$@" </dev/null \
        >"$work/$name.out" 2>&1 &
    helpers+=($!)
    listening $! bash -c "exec 3<>/dev/tcp/127.0.0.1/${front[$name]}" 2>/dev/null
}
weak tls11 -tls1_1 -cipher ALL:@SECLEVEL=0
weak null -tls1_2 -cipher NULL:@SECLEVEL=0
for name in tls11 null; do
    add "$name" "${front[$name]}" "${alice[@]}"
    refused 1 'TLS failed: ' reseal provider test "$name"
    refused 4 'TLS failed: ' reseal key status 1 --provider "$name"
done
event com.vmware.vc.kms.crypto.SendKeyError.KMSClusterError 'TLS failed'
