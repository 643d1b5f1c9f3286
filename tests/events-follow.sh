#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Events and audit: listed, followed as they come, filtered; their numbers go on after a restart.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
[ "$(id -u)" -eq 0 ] || { echo "only root may have a policy for other users"; exit 77; }

cat >"$work/policy.json" <<J
{"version": 1, "tenants": {"main": {"users": [0]}, "other": {"users": ["nobody"]}},
 "privileges": [{"to": "user:0", "roles": ["Administrator"]}]}
J
service_start --policy "$work/policy.json"

# What follows waits for its first line before anything happens.
reseal tenant add first --user daemon
reseal events --follow --since 0 --json >"$work/followed" 2>"$work/why" &
follower=$!
until_line() { # until_line FILE PATTERN
    for _ in $(seq 600); do
        ! grep -q -- "$2" "$1" || return 0
        sleep 0.1
    done
    fail "no line with $2 came: $(cat "$1" "$work/why")"
}
until_line "$work/followed" '"id":"reseal.tenant.Added"'
reseal tenant add second --user bin
reseal tenant suspend second
until_line "$work/followed" '"id":"reseal.tenant.Suspended"'
kill -INT "$follower"
code=0
wait "$follower" || code=$?
[ $code -eq 130 ] || fail "an interrupted follower ends with $code"
[ "$(wc -l <"$work/followed")" -eq 3 ] || fail "not three lines: $(cat "$work/followed")"

reseal events | grep -q 'tenant second: Suspended' || fail "the event is not listed"
reseal events --id '*.Suspended' --json >"$work/some"
[ "$(wc -l <"$work/some")" -eq 1 ] || fail "the filter gives: $(cat "$work/some")"
reseal events --since 2 --json | grep -q '"n":3' || fail "since does not begin after"
[ "$(reseal events --since 3 --json | wc -l)" -eq 0 ] || fail "since gives old ones"
reseal audit --id 'tenant.*' | grep -q 'tenant.suspend tenant:second: done' || fail "audit: $(reseal audit)"

# One that gets slow is told so; the others are not held up.
service_stop
service_start --policy "$work/policy.json"
[ "$(reseal events --json | wc -l)" -eq 3 ] || fail "events are gone after a restart"
reseal tenant resume second
reseal events --json | tail -n 1 | grep -q '"n":4' || fail "numbers do not go on: $(reseal events --json)"

code=0
reseal tenant suspend nowhere 2>"$work/why" || code=$?
[ $code -eq 4 ] && grep -q 'no tenant nowhere' "$work/why" || fail "a tenant that is not there: $code $(cat "$work/why")"
reseal events --since x 2>/dev/null && fail "a number that is none is taken"
exit 0
