#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Two stunnels back to back, the provider in the one or the other: a program with a thread for each connection, many
# connections at once, and none of them through curl.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/provider.sh"
command -v stunnel >/dev/null || fail "stunnel is missing: tests/run installs it"

openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost 2>/dev/null
size=$((3 << 20))
many=8
head -c $size /dev/urandom >file

# tunnel NAME SIDE LINES...: a stunnel on a port that the system chooses, then in $port
tunnel() {
    local name=$1 side=$2
    shift 2
    printf '%s\n' "foreground = yes" "pid =" "syslog = no" "debug = info" "output = $work/$name.log" "[$name]" \
        "accept = 127.0.0.1:0" "$@" >"$name.conf"
    : >"$name.log"
    background "$name" with "$side" "$name" stunnel "$name.conf" >/dev/null 2>&1
    until_true "$name" grep -q 'bound to 127' "$name.log"
    port=$(sed -n 's/.*bound to 127.0.0.1:\([0-9]*\).*/\1/p' "$name.log")
}

# Each connection came to its end: one that is cut would be an error of TLS.
all_closed() { [ "$(grep -c ' Connection \(closed\|reset\): ' "$1.log")" -ge $many ]; }

end_tunnels() {
    local name
    for name in near far; do until_true "$name" all_closed "$name"; done
    for name in near far; do
        kill -TERM "${pids[$name]}"
        wait "${pids[$name]}" || fail "stunnel: $(tail "$name.log")"
        unset "pids[$name]"
        ! grep 'LOG3.*SSL_' "$name.log" || fail "an error of TLS"
    done
    no_reports
}

# between FAR-SIDE NEAR-SIDE VERSION SERVED...: a tunnel to a program, and one to that
between() {
    local far=$1 near=$2 version=$3
    shift 3
    rm -f ./*.used
    tunnel far "$far" "cert = $work/cert.pem" "key = $work/key.pem" "sslVersion = $version" "$@"
    tunnel near "$near" "client = yes" "connect = 127.0.0.1:$port" "CAfile = $work/cert.pem" "verifyChain = yes"
}

download() {
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    cat <&3 | cmp - file
}

upload() {
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    cat file >&3
}

all_arrived() { [ "$(cat up.* 2>/dev/null | wc -c)" -ge $((many * size)) ]; }

# at_once FUNCTION: so many times
at_once() {
    local i waited=()
    for ((i = 0; i < many; i++)); do
        "$1" &
        waited+=($!)
    done
    for i in "${waited[@]}"; do wait "$i" || fail "$1: $(tail near.log far.log)"; done
}

for version in TLSv1.2 TLSv1.3; do
    for sides in 'reseal default' 'default reseal'; do
        # shellcheck disable=SC2086  # two words
        between $sides $version "exec = /bin/cat" "execArgs = cat $work/file"
        at_once download
        end_tunnels
        used_only far "${sides% *}" AES-256-GCM $((many * size))
        used_only near "${sides#* }" AES-256-GCM $((many * size))

        # shellcheck disable=SC2086
        between $sides $version "exec = /bin/sh" "execArgs = sh -c cat>$work/up.\$\$"
        at_once upload
        until_true far all_arrived
        end_tunnels
        for got in up.*; do cmp "$got" file || fail "what arrived is something else"; done
        rm up.*
        used_only far "${sides% *}" AES-256-GCM $((many * size))
        used_only near "${sides#* }" AES-256-GCM $((many * size))
    done
done
