#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `reseal bench sessions` opens them, sends data through, and leaves nothing; also at a service that goes on.
set -u
[ -x "$RESEAL_BUILD/bin/reseald" ] || { echo "reseald was not built"; exit 77; }
. "$RESEAL_SOURCE/tests/support/service.sh"
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }

mkdir "$work/tmp"
TMPDIR=$work/tmp "$RESEAL_BUILD/bin/reseal" bench sessions --sessions 24 --connections 3 --runs 1 --json >"$work/json" || fail "exit code $?"
[ "$(grep -c '"verified": true' "$work/json")" -eq 2 ] || fail "not two verified results: $(cat "$work/json")"
grep -q '"workload": "sessions-drawn-keys"' "$work/json" || fail "no row of drawn keys"
grep -q '"sessions": 24' "$work/json" || fail "not 24 sessions"
[ -z "$(ls -A "$work/tmp")" ] || fail "something is left behind: $(ls -A "$work/tmp")"
"$RESEAL_BUILD/bin/reseal" bench sessions --sessions 201 --connections 1 2>"$work/err"
[ $? -eq 2 ] || fail "more sessions than a client may have"
exit $bad
