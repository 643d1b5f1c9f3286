#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A policy that is wrong is refused with one line that says where and what to do; the documented example is right.
set -u
reseal=$RESEAL_BUILD/bin/reseal
work=$(mktemp -d "${TMPDIR:-/tmp}/reseal-test-XXXXXX")
trap 'rm -rf "$work"' EXIT
umask 022
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }

# refused TEXT-OF-FILE EXPECTED-IN-THE-LINE
refused() {
    printf '%s' "$1" >"$work/p.json"
    out=$("$reseal" policy check "$work/p.json" 2>&1)
    code=$?
    [ $code -eq 1 ] || fail "exit code $code for: $1"
    [ "$(wc -l <<<"$out")" -eq 1 ] || fail "more than a line: $out"
    grep -qF -- "$2" <<<"$out" || fail "'$2' is not in: $out"
}

T='"tenants": {"t": {"users": [0]}}'
refused '' 'not JSON'
refused '{"version": 1,
 "tenants": {"t": {}},
 oops}' 'line 3'
refused '[]' 'must be an object'
refused '{"version": 2, '"$T"'}' 'must be 1'
refused '{"version": 1}' '"tenants" must be'
refused '{"version": 1, "tenants": {}}' '"tenants" must be'
refused '{"version": 1, '"$T"', "colour": 1}' 'unknown member "colour"'
refused '{"version": 1, "version": 1, '"$T"'}' 'duplicate'
refused '{"version": 1, "tenants": {"t": {"users": ["no-such-user-here"]}}}' 'no local user'
refused '{"version": 1, "tenants": {"t": {"groups": ["no-such-group-here"]}}}' 'no local group'
refused '{"version": 1, "tenants": {"t": {"weight": 0}}}' 'from 1 to 1000'
refused '{"version": 1, "tenants": {"t": {"digest-key-file": "../x"}}}' 'without a path'
refused '{"version": 1, '"$T"', "pairs": [
  {"for": "tenant:u", "from": "plain", "to": "plain"}]}' 'no tenant'
refused '{"version": 1, '"$T"', "pairs": [
  {"for": "*", "from": "disk1", "to": "plain"}]}' 'line 2: "disk1" names no key'
refused '{"version": 1, '"$T"', "pairs": [{"for": "*", "from": "plain"}]}' 'needs "to"'
refused '{"version": 1, '"$T"', "pairs": [
  {"for": "*", "from": "plain", "to": "plain",
   "grants": ["zeromap"]}]}' 'line 3: "zeromap" is not one of the known grants'
refused '{"version": 1, '"$T"', "pairs": {}}' 'must be a list'
refused '{"version": 1, '"$T"', "privileges": [{"to": "*", "allow": ["Cryptographer.Everything"]}]}' 'not one of the known'
printf '{"version": 1}\0' >"$work/zero"; out=$("$reseal" policy check "$work/zero" 2>&1) && fail "a zero byte"

good='{"version": 1, '"$T"'}'
printf '%s' "$good" >"$work/p.json"
"$reseal" policy check "$work/p.json" >/dev/null || fail "a good policy: exit code $?"
chmod o+w "$work/p.json"
"$reseal" policy check "$work/p.json" 2>&1 | grep -q 'others can write it' || fail "a file that others can write"
chmod 644 "$work/p.json"
if [ "$(id -u)" = 0 ]; then
    chown 12345 "$work/p.json"
    "$reseal" policy check "$work/p.json" 2>&1 | grep -q 'another user' || fail "a file of another user"
fi
"$reseal" policy check "$work/none" >/dev/null 2>&1 && fail "no file"
"$reseal" policy check /dev/null >/dev/null 2>&1 && fail "a device"
"$reseal" policy >/dev/null 2>&1; [ $? -eq 2 ] || fail "usage"

cp "$RESEAL_SOURCE/docs/examples/policy.json" "$work/example.json" && chmod 644 "$work/example.json"
out=$("$reseal" policy check "$work/example.json") || fail "the example: exit code $?"
grep -q 'luks:\* -> luks:\*  .*PLAIN' <<<"$out" || fail "no PLAIN in the example"
"$reseal" policy check --fail-plain "$work/example.json" >/dev/null; [ $? -eq 3 ] || fail "--fail-plain"
"$reseal" policy check --json "$work/example.json" | grep -q '"identity": "user:2001"' || fail "--json"
exit $bad
