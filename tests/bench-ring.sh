#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `reseal bench ring` verifies what came through the service, with one of its own and with one that runs; leaves nothing.
set -u
. "$RESEAL_SOURCE/tests/support/service.sh"
reseal=$RESEAL_BUILD/bin/reseal
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }

[ -x "$RESEAL_BUILD/bin/reseald" ] || { echo "reseald was not built"; exit 77; }
mkdir "$work/tmp"
TMPDIR=$work/tmp "$reseal" bench ring --bytes 4K --runs 2 --trips 20 --json >"$work/json" || fail "exit code $?"
[ "$(grep -c '"verified": true' "$work/json")" -eq 3 ] || fail "not three verified results"
grep -q '"of_in_process": [0-9]' "$work/json" || fail "no comparison with the work in process"
grep -q '"p99_us": [0-9]' "$work/json" || fail "no round trip"
[ -z "$(ls -A "$work/tmp")" ] || fail "something is left behind: $(ls -A "$work/tmp")"

# Interrupted in the middle: the service and its folder go too.
TMPDIR=$work/tmp "$reseal" bench ring --runs 1000 >/dev/null 2>&1 &
pid=$!
until compgen -G "$work/tmp/*/lock" >/dev/null || ! kill -0 $pid 2>/dev/null; do sleep 0.05; done
kill -TERM $pid
wait $pid 2>/dev/null
[ -z "$(ls -A "$work/tmp")" ] || fail "an interruption leaves something behind: $(ls -A "$work/tmp")"

service_start
"$reseal" bench ring --runtime-dir "$RESEAL_RUNTIME_DIR" --bytes 64K --depth 8 --runs 1 --trips 20 >/dev/null || fail "--runtime-dir"
"$reseal" bench ring --runtime-dir "$work/none" --bytes 64K 2>"$work/err" && fail "no service is no error"
[ "$(wc -l <"$work/err")" -eq 1 ] || fail "no service deserves one line"
exit $bad
