#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a key provider's files in the state folder can be, damaged or of a newer version: it is left out and told, everything else
# works, nothing takes its place unasked, and its backup, or giving it up, mends it. Other damaged files are named.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/refused.sh"
begin() { service_start </dev/null >>"$work/reseald.log" 2>&1; }
printf 'a long enough password\n' >"$work/password" && chmod 600 "$work/password"
begin
reseal provider add safe --native --default >/dev/null
reseal provider export safe --output "$work/safe.p12" --password-file "$work/password" >/dev/null
reseal provider add other --native >/dev/null
reseal provider export other --output "$work/other.p12" --password-file "$work/password" >/dev/null
key=$(reseal key make --provider safe)
service_stop
state=$RESEAL_RUNTIME_DIR/state
file=$(echo "$state"/providers/safe@*.json)
cp -a "$state" "$work/good"
back() { rm -rf "$state" && cp -a "$work/good" "$state"; }

damage() { # damage REASON: what the file says now is told, and kept
    cp "$file" "$work/as-it-is"
    begin
    reseal provider list | grep -q "^safe .*cannot be used: $1" || fail "$1: $(reseal provider list)"
    grep -q "safe@.*was left out: $1" "$work/reseald.log" || fail "no line in the log: $(cat "$work/reseald.log")"
    refused 4 "$1" reseal key status "$key" --provider safe
    refused 4 "$1" reseal provider test safe
    refused 1 'cannot be used' reseal provider add safe --native
    refused 4 "$1" reseal provider remove safe
    cmp -s "$file" "$work/as-it-is" || fail "what cannot be read was changed"
    reseal key status "$(reseal key make --provider other)" --provider other >/dev/null
}
: >"$file"
damage 'the file is damaged'
# The backup puts it back.
reseal provider import safe "$work/safe.p12" --password-file "$work/password" >/dev/null
[ "$(reseal key status "$key" --provider safe)" = "available, in memory" ] || fail "the backup does not put it back"
! reseal provider list | grep -q 'cannot be used' || fail "it is told still"
service_stop
begin
reseal key status "$key" --provider safe >/dev/null || fail "not after another start"
service_stop

back
sed -i 's/"format": 1/"format": 2/' "$file"
damage 'it was written by a newer version'
service_stop
# The newer version is back: nothing happened to its provider.
sed -i 's/"format": 2/"format": 1/' "$file"
begin
reseal key status "$key" --provider safe >/dev/null || fail "it was harmed"
service_stop

back
truncate -s 20 "$file"
damage 'the file is damaged'
reseal provider remove safe --force >/dev/null
refused 4 "there is no key provider 'safe'" reseal key status "$key" --provider safe
reseal provider add safe --native >/dev/null
service_stop

back
echo '[' >"$state/provider-defaults.json"
begin
grep -q 'provider-defaults.json .*is damaged' "$work/reseald.log" || fail "no word about the default"
refused 4 'no default key provider' reseal key status "$key"
reseal provider default safe >/dev/null
reseal key status "$key" >/dev/null
service_stop

# Without who it is and whose hosts it has it does not start, and says which file.
for name in host-identity.sealed hosts.json tenants.json; do
    back
    echo 'x' >"$state/$name"
    rm -f "$work/ready" && mkfifo "$work/ready"
    "$RESEAL_BUILD/bin/reseald" --runtime-dir "$RESEAL_RUNTIME_DIR" --foreground </dev/null >"$work/log-$name" 2>&1 &
    service_pid=$!
    tries=0
    until grep -q "$name.* damaged" "$work/log-$name"; do
        [ $((tries += 1)) -lt 600 ] || fail "$name is not named: $(cat "$work/log-$name")"
        sleep 0.1
    done
    service_stop
done
