#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# openssl s_server and s_client, with the provider on either side, on both and on none: each GCM suite of TLS 1.2 and
# 1.3, data both ways, and new keys in the middle of it (key update, renegotiation).
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/provider.sh"

openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost 2>/dev/null

# Both programs take letters at the start of what they read for commands, and print messages wherever a record ends:
# the data are signs that no message has (the dump of a ticket would have them).
part_bytes=$((1 << 20))
signs='!#$%&{^~'
for part in 1 2 3 4; do
    od -An -v -to1 /dev/urandom | tr -d ' \n' | tr 0-7 "$signs" | head -c $part_bytes >part$part
done
received() { tr -cd "$signs" <"$1"; }
has_bytes() { [ "$(received "$1" | wc -c)" -ge "$2" ]; }

# connection SERVER-SIDE CLIENT-SIDE CIPHER OPTIONS...: the cipher is the provider's name for it
connection() {
    local server=$1 client=$2 cipher=$3 port
    shift 3
    rm -f ./*.used ./*.out ./*.in
    mkfifo server.in client.in
    background server with "$server" server openssl s_server -accept 127.0.0.1:0 -naccept 1 -cert cert.pem \
        -key key.pem -no_ticket -num_tickets 0 "$@" <>server.in >server.out 2>server.err
    until_true server grep -q '^ACCEPT ' server.out
    port=$(sed -n 's/^ACCEPT //p' server.out)
    background client with "$client" client openssl s_client -connect "$port" -state -verify_return_error \
        -CAfile cert.pem "$@" <>client.in >client.out 2>client.err
    # One way at a time: s_server does not read while it writes.
    cat part1 >client.in
    until_true server has_bytes server.out $part_bytes
    cat part2 >server.in
    until_true client has_bytes client.out $part_bytes
    new_keys "$@"
    cat part3 >client.in
    until_true server has_bytes server.out $((2 * part_bytes))
    cat part4 >server.in
    until_true client has_bytes client.out $((2 * part_bytes))
    echo Q >client.in
    wait "${pids[client]}" || fail "s_client: $(tail -n 5 client.out)"
    wait "${pids[server]}" || fail "s_server: $(tail -n 5 server.out)"
    grep -aq 'SSL_do_handshake -> 1' server.out || fail "no new keys: $(tail -n 5 server.out)"
    received server.out | cmp - <(cat part1 part3) || fail "the server received something else"
    received client.out | cmp - <(cat part2 part4) || fail "the client received something else"
    used_only server "$server" "$cipher" $((4 * part_bytes))
    used_only client "$client" "$cipher" $((4 * part_bytes))
    no_reports
}

# Both ends ask for new keys of both ways (1.3), or the server renegotiates (1.2). That a command to the server comes
# before the data is sure: it looks at its input before it reads what the client sends after this.
new_keys() {
    case $* in
    *-tls1_3*)
        echo K >client.in
        until_true client grep -q ^KEYUPDATE client.err
        echo K >server.in
        ;;
    *)
        echo r >server.in
        until_true client has_finished_twice
        ;;
    esac
}
has_finished_twice() { [ "$(grep -c 'read finished$' client.err)" -ge 2 ]; }

for ends in 'default default' 'default reseal' 'reseal default' 'reseal reseal'; do
    # shellcheck disable=SC2086  # two words
    for suite in TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384; do
        [[ $suite == *256_GCM* ]] && cipher=AES-256-GCM || cipher=AES-128-GCM
        connection $ends $cipher -tls1_3 -ciphersuites $suite
    done
    # shellcheck disable=SC2086
    for suite in ECDHE-RSA-AES128-GCM-SHA256 ECDHE-RSA-AES256-GCM-SHA384 DHE-RSA-AES256-GCM-SHA384 AES128-GCM-SHA256; do
        [[ $suite == *AES256* ]] && cipher=AES-256-GCM || cipher=AES-128-GCM
        connection $ends $cipher -tls1_2 -cipher $suite
    done
done
