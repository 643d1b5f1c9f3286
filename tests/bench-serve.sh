#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `reseal bench serve` does the whole comparison, verifies it and leaves nothing.
set -u
for p in qemu-nbd fio; do command -v $p >/dev/null || { echo "$p is not installed"; exit 77; }; done
[ -x "$RESEAL_BUILD/bin/reseald" ] || { echo "reseald was not built"; exit 77; }
. "$RESEAL_SOURCE/tests/support/service.sh"
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }

mkdir "$work/tmp"
TMPDIR=$work/tmp "$RESEAL_BUILD/bin/reseal" bench serve --size 8M --runs 1 --dir "$work/tmp" --json >"$work/json" || fail "exit code $?"
[ "$(grep -c '"verified": true' "$work/json")" -eq 2 ] || fail "not two verified results: $(cat "$work/json")"
for w in serve-random-read serve-sequential-write; do
    grep -q "\"workload\": \"$w\"" "$work/json" || fail "no row $w"
done
grep -q '"name": "qemu-nbd"' "$work/json" || fail "no peer"
[ -z "$(ls -A "$work/tmp")" ] || fail "something is left behind: $(ls -A "$work/tmp")"
exit $bad
