#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A native provider: of no use before it has a backup, which openssl and Java read and which gives another service the same keys.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/refused.sh"

service_start </dev/null >"$work/reseald.log" 2>&1
events=$work/run/state/events.jsonl
reseal provider list | grep -q '^there is none yet' || fail "it begins without a provider"
refused 4 "there is no default key provider: 'reseal provider add'" reseal key make
reseal provider add safe --native >/dev/null
refused 3 "'reseal provider export safe --output" reseal key make
refused 1 'reseal provider export safe' reseal provider test
grep -q kms.crypto.NotBackedUp "$events" || fail "no event"

printf 'short' >"$work/short"
printf 'a long enough password\n' >"$work/password"
printf 'another long password\n' >"$work/other"
chmod 600 "$work/short" "$work/password" "$work/other"
refused 4 'at least 12 characters' reseal provider export safe --output "$work/safe.p12" --password-file "$work/short"
printf 'abababababababab' >"$work/short"
refused 4 '5 of them different' reseal provider export safe --output "$work/safe.p12" --password-file "$work/short"
[ ! -e "$work/safe.p12" ] || fail "a file is left of a backup that was refused"
refused 3 'reseal provider export safe' reseal key make
refused 6 'File exists' reseal provider export safe --output "$work/password" --password-file "$work/password"
refused 2 'no terminal to ask' setsid -w reseal provider export safe --output "$work/safe.p12"
reseal provider export safe --output "$work/safe.p12" --password-file "$work/password" >/dev/null
[ "$(stat -c %a "$work/safe.p12")" = 600 ] || fail "others can read the backup"
grep -q kms.crypto.AllBackedUp "$events" || fail "no event"
reseal provider test >/dev/null

# Foreign readers.
openssl pkcs12 -in "$work/safe.p12" -passin "file:$work/password" -nokeys -info >"$work/out" 2>&1 || fail "$(cat "$work/out")"
grep -q 'Secret bag' "$work/out" || fail "$(cat "$work/out")"
if command -v keytool >/dev/null; then
    keytool -list -keystore "$work/safe.p12" -storetype PKCS12 -storepass:file "$work/password" >"$work/out" 2>&1 </dev/null || fail "$(cat "$work/out")"
    grep -q SecretKeyEntry "$work/out" || fail "$(cat "$work/out")"
fi

key=$(reseal key make)
[ "${#key}" -eq 107 ] || fail "an id of ${#key} characters"
[ "$(reseal key status "$key")" = "available, in memory" ] || fail "a new key is in memory"
last=${key%???????}
refused 4 KeyStateMissingInKMS reseal key status "${last%?}-AAAAAAA"
reseal provider add second --native --default >/dev/null
reseal provider export second --output "$work/second.p12" --password-file "$work/password" >/dev/null
refused 4 'belongs to another native provider than second' reseal key status "$key"
reseal key forget >/dev/null
[ "$(reseal key status "$key" --provider safe)" = "available, in memory" ] || fail "it is opened again"

# Removed, and back from its backup.
refused 1 'once its backup is imported' reseal provider remove safe
reseal provider remove safe --force >/dev/null
refused 4 'add it again under that name' reseal key status "$key" --provider safe
refused 4 'not that of the backup' reseal provider import safe "$work/safe.p12" --password-file "$work/other"
refused 5 'no backup of a native provider' reseal provider import safe "$work/password" --password-file "$work/password"
reseal provider import safe "$work/safe.p12" --password-file "$work/password" >/dev/null
refused 1 'another key provider second already' reseal provider import second "$work/safe.p12" --password-file "$work/password"
reseal provider import safe "$work/safe.p12" --password-file "$work/password" >/dev/null # the same again changes nothing
reseal key status "$key" --provider safe >/dev/null

# Another service: the same keys, under whatever name.
service_stop
mv "$work/run" "$work/first"
service_start </dev/null >"$work/reseald.log" 2>&1
reseal provider import there "$work/safe.p12" --password-file "$work/password" >/dev/null
[ "$(reseal key status "$key")" = "available, in memory" ] || fail "another service has the same key"
service_stop

# Secrets that were changed: that provider is left out, says so, and nothing is overwritten; put back, it is there again.
sealed=$(echo "$work"/run/state/providers/there@*.sealed)
cp "$sealed" "$work/kept"
printf 'x' | dd of="$sealed" bs=1 seek=60 conv=notrunc status=none
cp "$sealed" "$work/changed"
service_start </dev/null >"$work/reseald.log" 2>&1
reseal provider list | grep -q '^there .*cannot be used: its secrets cannot be opened' || fail "a provider whose secrets were changed is used, or not told"
grep -q 'was left out' "$work/run/state/events.jsonl" || fail "no event"
refused 4 'put it back from a backup' reseal key status "$key" --provider there
refused 1 'give it up with' reseal provider add there --native
cmp -s "$sealed" "$work/changed" || fail "what could not be opened was changed"
service_stop
cp "$work/kept" "$sealed"
service_start </dev/null >"$work/reseald.log" 2>&1
[ "$(reseal key status "$key")" = "available, in memory" ] || fail "it is not there again, or not the default"
