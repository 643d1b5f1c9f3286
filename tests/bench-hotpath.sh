#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `reseal bench hotpath` verifies what it measured, for every pair and engine; the JSON names are a contract.
set -u
reseal=$RESEAL_BUILD/bin/reseal
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT

names='bytes cipher cpu_s_per_gb default_cpu_s_per_gb default_gbps default_user_cpu_s_per_gb depth direction engine from gbps
gbps_high gbps_low jobs_per_s key_bits of_aes_limit of_aes_limit_high of_aes_limit_low of_copy of_copy_high of_copy_low
of_in_process of_in_process_high of_in_process_low openssl_version p50_us p999_us p99_us peers ratio ratio_high ratio_low
round_trip_ratio runs sessions sessions_per_s sessions_per_s_high sessions_per_s_low to unit user_cpu_s_per_gb verified workload working_set'

for pair in 'xts xts' 'xts gcm' 'gcm xts' 'gcm gcm' 'plain xts' 'xts plain' 'plain gcm' 'gcm plain'; do
    read -r from to <<<"$pair"
    for options in '--unit 4096 --key-bits 256' '--unit 512 --key-bits 128 --kernel-only --bytes 4K'; do
        # shellcheck disable=SC2086
        "$reseal" bench hotpath --from "$from" --to "$to" --runs 1 --json $options >"$work/json" ||
            fail "$pair $options: exit code $?"
        grep -q '"verified": true' "$work/json" || fail "$pair $options: not verified"
        grep -q "\"from\": \"$from\"" "$work/json" || fail "$pair: from"
    done
done
[ "$(head -c 1 "$work/json")" = '[' ] || fail "the JSON is not an array"
got=$(grep -o '^    "[a-z0-9_]*":' "$work/json" | tr -d ' ":' | LC_ALL=C sort | tr '\n' ' ')
want=$(xargs -n 1 <<<"$names" | LC_ALL=C sort | tr '\n' ' ')
[ "$got" = "$want" ] || { fail "the names of the JSON fields"; printf '%s\n' "got:  $got" "want: $want"; }

"$reseal" bench hotpath --from xts --to xts --engine openssl --runs 1 --no-peers | grep -q 'openssl' || fail "--engine openssl"
"$reseal" bench hotpath --engine nonsense --from xts --to xts 2>"$work/err" && fail "an unknown engine is measured"
[ "$(wc -l <"$work/err")" -eq 1 ] || fail "an unknown engine deserves one line"
for wrong in '--unit 1000' '--bytes 5000000' '--key-bits 192' '--from rot13' '--runs 0' '--from plain --to plain' 'extra'; do
    # shellcheck disable=SC2086
    "$reseal" bench hotpath $wrong >/dev/null 2>&1
    [ $? -eq 2 ] || fail "'$wrong' is not refused as a wrong command line"
done
exit $bad
