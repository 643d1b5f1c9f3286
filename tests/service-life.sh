#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Starting, ending and starting again: one service for a folder, nothing left behind, nothing started half.
set -euo pipefail
. "$RESEAL_SOURCE/tests/support/service.sh"

fail() {
    echo "FAIL: $*" >&2
    exit 1
}
refused() { # expected text, then the command
    local expected=$1 text
    shift
    if text=$("$@" 2>&1); then fail "worked: $*"; fi
    grep -qF -- "$expected" <<<"$text" || fail "wrong message for $*: $text"
    [ "$(wc -l <<<"$text")" -eq 1 ] || fail "more than one line: $text"
}

service_start
dir=$RESEAL_RUNTIME_DIR
[ "$(stat -c %a "$dir")" = 700 ] || fail "folder mode"
for socket in control keys admin; do
    [ -S "$dir/$socket.sock" ] && [ "$(stat -c %a "$dir/$socket.sock")" = 600 ] || fail "$socket.sock"
done
refused "a service runs here already" reseald --runtime-dir "$dir"
[ -S "$dir/control.sock" ] || fail "the refused one removed the socket of the other"

service_stop
[ "$(ls -A "$dir")" = state ] || fail "left behind: $(ls -A "$dir")"
[ "$(stat -c %a "$dir/state")" = 700 ] || fail "state folder mode"

# A service that was killed leaves its sockets; the next one takes their place, and its programs are gone.
service_start
children=$(pgrep -P "$service_pid")
kill -KILL "$service_pid"
wait "$service_pid" 2>/dev/null || true
service_pid=
for child in $children; do
    tail --pid="$child" -f /dev/null
done
[ -S "$dir/control.sock" ] || fail "no stale socket to begin with"
service_start

# Programs that are ended come back.
first=$(pgrep -P "$service_pid" -x reseald-work)
kill -TERM "$first"
tail --pid="$first" -f /dev/null
for _ in $(seq 600); do ! reseal status >/dev/null 2>&1 || break; sleep 0.1; done
reseal status >/dev/null || fail "no status after a restart"
second=$(pgrep -P "$service_pid" -x reseald-work)
[ "$first" != "$second" ] || fail "not restarted"
service_stop

refused "no service to take over" reseald --takeover --runtime-dir "$dir"
refused "needs --policy" reseald
refused "cannot read the policy $work/none: No such file" reseald --policy "$work/none" --runtime-dir "$dir"
umask 077
printf '{"version": 1,\n' >"$work/policy"
refused "$work/policy: line 2" reseald --policy "$work/policy" --runtime-dir "$dir"
[ "$(ls -A "$dir")" = state ] || fail "left behind by a policy that does not parse: $(ls -A "$dir")"

# One that ran is started again until its policy is mended.
good="{\"version\": 1, \"tenants\": {\"t\": {\"users\": [$(id -u)]}}}"
printf '%s\n' "$good" >"$work/policy"
service_start --policy "$work/policy"
printf '{"version": 1,\n' >"$work/policy"
first=$(pgrep -P "$service_pid" -x reseal-keyd)
kill -KILL "$first"
tail --pid="$first" -f /dev/null
while second=$(pgrep -P "$service_pid" -x reseal-keyd) && [ -n "$second" ] && kill -0 "$second" 2>/dev/null; do :; done
kill -0 "$service_pid" || fail "the service ended with a policy that was changed while it ran"
printf '%s\n' "$good" >"$work/policy"
until reseal status >/dev/null 2>&1; do kill -0 "$service_pid" || fail "ended"; done
service_stop

refused "takes options only" reseald --runtime-dir "$dir" more
refused "exclude each other" reseald --runtime-dir "$dir" --workers 1 --cpus 0
chmod 777 "$dir"
refused "others may write in it" reseald --runtime-dir "$dir"
reseald --help | grep -q -- --takeover || fail "--help"
