#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# status, top and doctor show a running service; without one they say so in a line.
set -u
. "$RESEAL_SOURCE/tests/support/service.sh"
reseal=$RESEAL_BUILD/bin/reseal
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }

for c in status 'top -n 1'; do
    # shellcheck disable=SC2086
    "$reseal" $c --runtime-dir "$work/none" >/dev/null 2>"$work/err"
    code=$?
    [ $code -eq 7 ] || fail "$c without a service: exit code $code, not 7"
    [ "$(wc -l <"$work/err")" -eq 1 ] || fail "$c without a service deserves one line"
done
service_start

out=$("$reseal" status) || fail "status: exit code $?"
for text in '^reseald ' 'key memory:' 'protections in force:' '^reseal-keyd: process' '^WORKER' '^client '; do
    grep -q "$text" <<<"$out" || fail "status does not show '$text'"
done
json=$("$reseal" status --json) || fail "status --json: exit code $?"
for name in version workers clients engines protections key_memory key_service; do
    grep -q "\"$name\":" <<<"$json" || fail "status --json lacks '$name'"
done
[ "$("$reseal" top -n 2 -d 0.1 | grep -c '^worker 0 ')" -eq 2 ] || fail "top -n 2 does not show two rounds"
"$reseal" top -n 1 -d 0.1 | grep -q $'\033' && fail "top draws on what is no terminal"
"$reseal" | grep -q '^service: running' || fail "the bare command does not show the state"
"$reseal" doctor >"$work/doctor" || { fail "doctor: exit code $?"; cat "$work/doctor"; }
grep -q '^ok *key service' "$work/doctor" || fail "the doctor does not find reseal-keyd"
exit $bad
