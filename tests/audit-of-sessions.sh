#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `reseal audit` tells of the keys that a command gave by pass phrase and as raw key, and of what their sessions did;
# no pass phrase and no key is in a line. A key of a provider says so.
set -u
umask 077
. "$RESEAL_SOURCE/tests/support/service.sh"
service_start --keep-audit 1
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }

# Lines of an operation that fit a pattern; waits for what sessions did, which is told a moment later.
audit_has() {
    for _ in $(seq 300); do
        reseal audit --json --id "$1" >"$work/audit" || fail "reseal audit: $?"
        grep -q -- "$2" "$work/audit" && return 0
        sleep 0.2
    done
    fail "no line of $1 has $2: $(cat "$work/audit")"
}

printf 'correct horse battery staple' >"$work/phrase"
head -c 64 /dev/urandom >"$work/key"
head -c 4194304 /dev/urandom >"$work/plain"
uuid_of() { cryptsetup luksUUID "$1" | tr -d '\n'; }

reseal transcode -q --destination-passphrase-file "$work/phrase" --pbkdf pbkdf2 --pbkdf-ms 10 --luks-version 2 \
    "plain:$work/plain" "luks:$work/luks" || fail "to LUKS: $?"
reseal transcode -q --source-passphrase-file "$work/phrase" "luks:$work/luks" "xts:$work/raw,key=$work/key,name=spare" ||
    fail "to raw XTS: $?"
uuid=$(uuid_of "$work/luks")
audit_has key.format "\"object\": *\"luks:$uuid\""
audit_has key.phrase "\"object\": *\"luks:$uuid\""
audit_has key.raw '"object": *"raw:spare"'
audit_has session.open "\"object\": *\"plain -> luks:$uuid\""
audit_has session.open "\"object\": *\"luks:$uuid -> raw:spare\""
audit_has session.end "\"object\": *\"luks:$uuid -> raw:spare\".*\"bytes\": *4[0-9]\{6\}"

reseal provider add house --native >/dev/null && printf 'of the backup' >"$work/p12" &&
    reseal provider export house --output "$work/backup.p12" --password-file "$work/p12" >/dev/null || fail "provider: $?"
reseal transcode -q --to-provider house "plain:$work/plain" "luks:$work/sealed" || fail "to the provider: $?"
audit_has session.open '"destination-provider": *"house"'
reseal audit | grep -q 'session.open' || fail "reseal audit without --json"

# Chosen by time, user and object; as little is shown of what did not happen.
now=$(date -u +%Y-%m-%dT%H:%M)
[ "$(reseal audit --user "$(id -u)" --object "luks:$uuid" | wc -l)" -ge 2 ] || fail "by object: $(reseal audit --object "luks:$uuid")"
[ "$(reseal audit --since 2020-01-01 --id key.raw | wc -l)" -ge 1 ] || fail "from a time that is over"
[ -z "$(reseal audit --since 2999-12-31T23:59 --json)" ] || fail "from a time to come"
[ -z "$(reseal audit --user 4294967290)" ] || fail "what another user did"
[ -z "$(reseal audit --of-tenant nobody --since "${now%T*} 00:00:00Z")" ] || fail "what another tenant did"
for since in yesterday 2026-13-01 2026-1-1 -5; do
    reseal audit --since "$since" >/dev/null 2>"$work/err" && fail "--since $since"
    grep -q 'a time (UTC)' "$work/err" || fail "--since $since: $(cat "$work/err")"
done
reseal audit --user no-such-user >/dev/null 2>"$work/err" && fail "a user that is none"
"$RESEAL_BUILD/bin/reseald" --runtime-dir "$work/other" --keep-audit 0 2>"$work/err" </dev/null && fail "--keep-audit 0"
grep -q 'MiB, 1 to' "$work/err" || fail "--keep-audit 0: $(cat "$work/err")"

hex=$(od -An -tx1 -N16 "$work/key" | tr -d ' \n')
files=$(find "$work/run" "$work/run"/../ -name 'audit.jsonl*' 2>/dev/null | sort -u)
[ -n "$files" ] || fail "no file of the audit"
! grep -q -e 'correct horse' -e "$hex" $files || fail "a secret is in the audit"
exit $bad
