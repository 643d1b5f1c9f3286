#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A native provider whose backup could not be written is no provider with a backup: it stays unusable, and a second try makes it
# usable.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/refused.sh"
mkdir "$work/small"
mount -t tmpfs -o size=8k tmpfs "$work/small" 2>/dev/null || { echo "only root may mount a small file system"; exit 77; }
ended() {
    local status=$?
    umount "$work/small" || true
    (exit $status)
    service_cleanup
}
trap ended EXIT
head -c 4096 /dev/zero >"$work/small/other"
service_start </dev/null >"$work/reseald.log" 2>&1
printf 'a long enough password\n' >"$work/password" && chmod 600 "$work/password"
reseal provider add safe --native >/dev/null
refused 6 'No space left on device' reseal provider export safe --output "$work/small/safe.p12" --password-file "$work/password"
[ ! -e "$work/small/safe.p12" ] || fail "a part of a backup is left"
reseal provider list | grep -q '^safe .*no backup yet' || fail "it counts as backed up: $(reseal provider list)"
refused 3 backup reseal key make
mount -o remount,size=1m "$work/small"
reseal provider export safe --output "$work/small/safe.p12" --password-file "$work/password" >/dev/null
[ "$(stat -c %s "$work/small/safe.p12")" -lt 8192 ] || fail "the file is longer than the backup"
openssl pkcs12 -in "$work/small/safe.p12" -passin "file:$work/password" -noout -info >"$work/out" 2>&1 || fail "no PKCS#12 file: $(cat "$work/out")"
key=$(reseal key make)
[ "$(reseal key status "$key")" = "available, in memory" ] || fail "no key"
