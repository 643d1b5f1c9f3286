#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `reseal engines` lists what is built in, why something is not used, and one choice for each shape.
set -u
reseal=$RESEAL_BUILD/bin/reseal
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }

out=$("$reseal" engines) || fail "exit code $?"
grep -q '^openssl .* used$' <<<"$out" || fail "openssl is not used"
grep -q '^xts -> gcm  *256  *4096  *65536 .*\*' <<<"$out" || fail "no choice for xts -> gcm"
[ "$(grep -c ' -> ' <<<"$out")" -ge 20 ] || fail "few shapes"

json=$("$reseal" engines --json) || fail "--json: exit code $?"
for name in engines calibration name variant used fault from to key_bits unit bytes engine gbps chosen; do
    grep -q "\"$name\":" <<<"$json" || fail "--json lacks '$name'"
done

# An engine that fails its self-test is shown with the reason, and nothing is chosen from it.
out=$(RESEAL_SELFTEST_FAIL=openssl:xts-gcm "$reseal" engines 2>&1)
grep -q '^openssl .*selftest failed' <<<"$out" || fail "a failed self-test is not shown"
grep -q '\*openssl' <<<"$out" && fail "an engine that failed is chosen"
out=$(RESEAL_SELFTEST_FAIL=openssl:xts-gcm "$reseal" doctor 2>&1)
grep -q 'engines .*openssl: selftest failed' <<<"$out" || fail "the doctor does not see a failed self-test"
out=$(RESEAL_ENGINE=openssl "$reseal" engines)
grep '[*]' <<<"$out" | grep -v '[*]openssl' | grep -qv CHOSEN && fail "RESEAL_ENGINE is not obeyed"
exit $bad
