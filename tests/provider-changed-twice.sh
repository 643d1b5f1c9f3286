#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Changes of one key provider that come at the same time: each is there in the end, or its command failed and said why.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
service_start </dev/null >"$work/reseald.log" 2>&1
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=ca -keyout "$work/ca.key" -out "$work/ca.crt" 2>/dev/null
reseal provider add vault --server 127.0.0.1:1 --ca "$work/ca.crt" >/dev/null

again() { # again NAME ARGUMENTS...: until nobody was quicker
    local name=$1 code
    shift
    for _ in $(seq 100); do
        code=0
        reseal provider "$@" >"$work/$name.out" 2>"$work/$name.err" </dev/null || code=$?
        [ $code -ne 0 ] || return 0
        grep -q 'was changed by somebody else meanwhile' "$work/$name.err" || return 1
        echo once >>"$work/quicker"
    done
    return 1
}
: >"$work/quicker"
for round in 1 2 3 4; do
    reseal provider update vault --cache 9 --timeout 9 --kmip auto --server 127.0.0.1:1 --ca "$work/ca.crt" >/dev/null
    pids=()
    again cache update vault --cache $((100 + round)) & pids+=($!)
    again time update vault --timeout $((20 + round)) & pids+=($!)
    again version update vault --kmip "1.$round" & pids+=($!)
    again server update vault --server "127.0.0.1:$((10 + round))" --ca "$work/ca.crt" & pids+=($!)
    again request csr vault --subject "CN=host$round" & pids+=($!)
    for pid in "${pids[@]}"; do wait "$pid" || fail "a change failed: $(cat "$work"/*.err)"; done
    reseal provider list --json >"$work/list"
    for want in "\"cache_s\": $((100 + round))" "\"request_s\": $((20 + round))" "\"version\": \"1.$round\"" "127.0.0.1:$((10 + round))"; do
        grep -qF "$want" "$work/list" || fail "a change that was answered is lost: $want: $(cat "$work/list")"
    done
    # The key of the request is there, whoever changed what: its certificate is taken.
    openssl x509 -req -in "$work/request.out" -CA "$work/ca.crt" -CAkey "$work/ca.key" -days 2 -out "$work/client.crt" 2>/dev/null
    reseal provider certificate vault --cert "$work/client.crt" >/dev/null
done
echo "$(wc -l <"$work/quicker") of them were asked to try again"
