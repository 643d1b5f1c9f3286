#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `reseal bench transcode` does the whole comparison, both ways, verifies it and leaves nothing.
set -u
for p in qemu-img cryptsetup; do command -v $p >/dev/null || { echo "$p is not installed"; exit 77; }; done
[ -x "$RESEAL_BUILD/bin/reseald" ] || { echo "reseald was not built"; exit 77; }
. "$RESEAL_SOURCE/tests/support/service.sh"
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }

mkdir "$work/tmp"
TMPDIR=$work/tmp "$RESEAL_BUILD/bin/reseal" bench transcode --size 8M --runs 1 --dir "$work/tmp" --json >"$work/json" ||
    fail "exit code $?"
[ "$(grep -c '"verified": true' "$work/json")" -eq 3 ] || fail "not three verified results"
grep -q '"name": "qemu-img convert -n"' "$work/json" || fail "no peer out of place"
grep -q '"name": "cryptsetup reencrypt' "$work/json" || fail "no peer in place"
for w in transcode transcode-page-cache transcode-in-place; do
    grep -q "\"workload\": \"$w\"" "$work/json" || fail "no row $w"
done
grep -q '"cpu_s_per_gb": [0-9]' "$work/json" || fail "no CPU time"
[ -z "$(ls -A "$work/tmp")" ] || fail "something is left behind: $(ls -A "$work/tmp")"
exit $bad
