#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Roles, administrators and tenants with rights of their own in a policy file: shown as they count, wrong ones refused with the line.
set -eu
work=$(mktemp -d "${TMPDIR:-/tmp}/reseal-test-XXXXXX")
trap 'rm -rf "$work"' EXIT
reseal=$RESEAL_BUILD/bin/reseal
fail() { echo "FAILED: $*" >&2; exit 1; }
cat >"$work/policy.json" <<'J'
{"version": 1,
 "roles": {"Courier": ["Cryptographer.Migrate", "Cryptographer.Clone"]},
 "administrators": ["user:60003"],
 "tenants": {"acme": {"users": [60001], "roles": ["BackupOperator"], "max-sessions": 5,
                      "pairs": [{"from": "luks:*", "to": "random:vault", "grants": ["digest"]}]},
             "other": {"users": [60002], "suspended": true}},
 "privileges": [{"to": "user:60002", "roles": ["Courier", "NoCryptoAdministrator"], "allow": ["Cryptographer.Decrypt"]}]}
J
chmod 600 "$work/policy.json"
"$reseal" policy show "$work/policy.json" >"$work/out" || fail "it is refused"
grep -A1 '^tenant:acme .*roles: BackupOperator' "$work/out" | grep -q 'privileges: Access, AddDisk, EncryptNew, ReadKeyServersInfo, RegisterVM$' ||
    fail "$(cat "$work/out")"
grep -A2 '^user:60001 ' "$work/out" | grep -q 'luks:\* -> random:vault  \[digest\]  for tenant:acme' || fail "$(cat "$work/out")"
grep -A1 '^user:60002 .*roles: Courier,NoCryptoAdministrator' "$work/out" | grep -q 'privileges: Clone, Decrypt, Migrate$' || fail "$(cat "$work/out")"
grep -q '^administrators of the service: .*user:60003$' "$work/out" || fail "$(cat "$work/out")"
grep -q '^  KeyAdministrator ' "$work/out" || fail "$(cat "$work/out")"
"$reseal" policy show --json "$work/policy.json" | grep -q '"administrators"' || fail "JSON"
"$reseal" policy check "$work/policy.json" >/dev/null || fail "check"

wrong() { # wrong TEXT SED
    sed "$2" "$work/policy.json" >"$work/wrong.json"
    chmod 600 "$work/wrong.json"
    "$reseal" policy show "$work/wrong.json" >"$work/out" 2>&1 && fail "taken: $2"
    grep -qF "$1" "$work/out" || fail "$2: $(cat "$work/out")"
}
wrong 'no role "Postman"' 's/"Courier", "No/"Postman", "No/'
wrong 'is known already' 's/"Courier": \[/"Administrator": [/'
wrong 'not one of the known' 's/Cryptographer.Clone/Cryptographer.Copy/'
wrong 'an administrator is a' 's/"user:60003"/"tenant:acme"/'
wrong '"suspended" must be true or false' 's/"suspended": true/"suspended": 1/'
wrong 'from 1 to 65536' 's/"max-sessions": 5/"max-sessions": 0/'
wrong 'without "for"' 's/{"from": "luks/{"for": "*", "from": "luks/'
exit 0
