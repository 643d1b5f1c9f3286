#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `reseal bench openssl` measures and verifies every cipher, flow and TLS suite; a module that cannot be loaded is one clear line.
set -u
reseal=$RESEAL_BUILD/bin/reseal
module=$RESEAL_BUILD/lib/ossl-modules/reseal.so
[ -f "$module" ] || { echo "reseal.so was not built"; exit 77; }
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT

# rows FIELD VALUE: how many rows have it.
rows() { grep -c "^    \"$1\": $2,\?\$" "$work/json"; }

"$reseal" bench openssl --quick --runs 1 --json >"$work/json" || fail "exit code $?"
all=$(rows workload '".*"')
# 3 GCM and 2 XTS in both directions, 3 CTR: 13; by 8 sizes, and by 2 sizes in two other flows; 4 suites.
[ "$all" -eq $((13 * 8 + 13 * 2 * 2 + 4)) ] || fail "$all rows"
for w in openssl:104 openssl-rekey:26 openssl-new-context:26 openssl-tls:4; do
    [ "$(rows workload "\"${w%:*}\"")" -eq "${w#*:}" ] || fail "rows of ${w%:*}"
done
[ "$(rows verified true)" -eq "$all" ] || fail "not every row is verified"
[ "$(rows engine '"[a-z0-9-]*"')" -eq "$all" ] || fail "not every row has an engine"
[ "$(rows cipher '"[A-Z0-9_-]*"')" -eq "$all" ] || fail "not every row has a cipher"
for f in ratio ratio_low ratio_high bytes runs; do
    [ "$(rows $f '[0-9.e-]*')" -eq "$all" ] || fail "not every row has $f"
done
version=$(openssl version 2>/dev/null | sed 's/.*(Library: //; s/^OpenSSL //; s/ .*//')
[ -z "$version" ] || [ "$(rows openssl_version "\"$version\"")" -eq "$all" ] || fail "not every row says OpenSSL $version"
[ "$(rows gbps '[0-9.e-]*')" -eq $((all - 4)) ] || fail "messages without GB/s"
[ "$(rows default_gbps '[0-9.e-]*')" -eq $((all - 4)) ] || fail "messages without the default provider's GB/s"
[ "$(rows cpu_s_per_gb '[0-9.e-]*')" -eq 4 ] || fail "suites without CPU time"
[ "$(rows default_cpu_s_per_gb '[0-9.e-]*')" -eq 4 ] || fail "suites without the default provider's CPU time"

# What delegates says so.
RESEAL_OSSL_ENGINE=openssl "$reseal" bench openssl --quick --runs 1 --json --cipher aes-256-gcm --bytes 1K >"$work/json" ||
    fail "delegated: exit code $?"
[ "$(rows engine '"openssl"')" -eq 6 ] || fail "delegation is not told"

"$reseal" bench openssl --quick --runs 1 --cipher TLS_AES_256_GCM_SHA384 >"$work/text" || fail "one suite: exit code $?"
grep -q '^promised, .* OpenSSL [0-9]' "$work/text" || fail "no promise is printed"
"$reseal" bench openssl --quick --runs 1 --no-tls --cipher AES-128-CTR --bytes 100 --core 0 >/dev/null || fail "odd size: exit code $?"

# refused MODULE TEXT: exit code 1 and one line that names the file.
refused() {
    local out
    out=$("$reseal" bench openssl --quick --module "$1" 2>"$work/err")
    [ $? -eq 1 ] || fail "$2: not exit code 1"
    [ -z "$out" ] || fail "$2: prints rows"
    [ "$(wc -l <"$work/err")" -eq 1 ] || fail "$2: not one line"
    grep -qF "$1" "$work/err" || fail "$2: does not name the file"
}
mkdir "$work/m"
head -c 4096 "$module" >"$work/m/reseal.so"
refused "$work/m/reseal.so" "a truncated module"
: >"$work/m/empty.so"
refused "$work/m/empty.so" "an empty module"
refused "$work/m/nowhere.so" "a module that is not there"
refused "$RESEAL_BUILD/lib/libreseal.so" "a library that is no provider"

for wrong in '--bytes 0' '--bytes 17M' '--runs 0' '--cipher rot13' '--cipher AES-192-XTS' '--cipher AES-256-XTS --bytes 15' '--core x' 'extra' \
    '--cipher TLS_AES_256_GCM_SHA384'; do
    # shellcheck disable=SC2086
    "$reseal" bench openssl --quick --runs 1 --no-tls $wrong >/dev/null 2>&1
    [ $? -eq 2 ] || fail "'$wrong' is not refused as a wrong command line"
done
exit $bad
