#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tenants of one service see their own key providers and those for all, and no others; only the service's own user changes the
# latter; who lacks a privilege is told which.
set -eu
[ "$(id -u)" -eq 0 ] || { echo "only root can become another user"; exit 77; }
if ! command -v setpriv >/dev/null || ! getent passwd daemon nobody bin games >/dev/null; then
    echo "no setpriv, or no users daemon, nobody, bin and games"
    exit 77
fi
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/refused.sh"
chmod 755 "$work"
mkdir -m 755 "$work/programs"
install -m 755 "$RESEAL_BUILD"/bin/{reseald,reseald-work,reseal-keyd,reseal} "$work/programs"
group=$(id -g daemon)
cat >"$work/policy.json" <<J
{"version": 1,
 "tenants": {"acme": {"users": [$(id -u nobody), $(id -u games)]}, "globex": {"users": [$(id -u bin)]}, "house": {"users": [0]}},
 "privileges": [
  {"to": "user:$(id -u nobody)", "allow": ["Cryptographer.ManageKeyServers", "Cryptographer.ManageKeys", "Cryptographer.ReadKeyServersInfo"]},
  {"to": "tenant:globex", "allow": ["Cryptographer.ManageKeyServers", "Cryptographer.ManageKeys", "Cryptographer.ReadKeyServersInfo"]},
  {"to": "tenant:house", "allow": ["Cryptographer.ManageKeyServers", "Cryptographer.ManageKeys", "Cryptographer.ReadKeyServersInfo"]}],
 "pairs": []}
J
mkfifo "$work/is-ready"
"$work/programs/reseald" --runtime-dir "$work/run" --policy "$work/policy.json" --user daemon --ready-fd 9 </dev/null >"$work/log" 2>&1 9>"$work/is-ready" &
service_pid=$!
read -r line <"$work/is-ready"
[ "$line" = ready ] || fail "the service says '$line': $(cat "$work/log")"

as() { # as USER ARGUMENTS...: reseal as that user
    local user=$1
    shift
    setpriv --reuid="$user" --regid="$group" --clear-groups "$work/programs/reseal" "$@" --runtime-dir "$work/run"
}
usable() { # usable USER NAME: a native provider with a backup
    as "$1" provider add "$2" --native "${@:3}" >/dev/null
    as "$1" provider export "$2" --output "$work/$1/$2.p12" --password-file "$work/$1/password" >/dev/null
}
for user in nobody bin root; do
    mkdir -m 700 "$work/$user"
    printf 'a long enough password' >"$work/$user/password"
    chmod 600 "$work/$user/password"
    chown -R $user "$work/$user"
done

usable nobody vault
usable bin vault # the same name, another provider
usable bin other
mine=$(as nobody key make --provider vault)
as nobody key status "$mine" --provider vault >/dev/null
refused 4 'belongs to another native provider than vault' as bin key status "$mine" --provider vault
refused 4 "there is no key provider 'other'" as nobody provider test other
refused 4 "there is no key provider 'other'" as nobody provider remove other
[ "$(as nobody provider list | wc -l)" -eq 1 ] || fail "another tenant's provider is listed: $(as nobody provider list)"
[ "$(as bin key list | wc -l)" -eq 0 ] || fail "another tenant's keys are listed"
[ "$(as bin key forget)" = "0 forgotten" ] || fail "another tenant's keys are forgotten"

refused 3 'Cryptographer.ReadKeyServersInfo' as games provider list
refused 3 'Cryptographer.ManageKeyServers' as games provider add x --native
refused 3 'Cryptographer.ManageKeys' as games key make --provider vault

# For all tenants.
refused 3 'only root or the user of the service' as nobody provider add ours --native --shared
usable root house --shared
as nobody provider list | grep -q '^house .*for all tenants' || fail "a provider for all is not listed"
key=$(as bin key make --provider house)
[ -n "$key" ] || fail "no key of a provider for all"
refused 3 'only root or the user of the service changes it' as bin provider remove house --force
refused 3 'only root or the user of the service changes it' as bin provider export house --output "$work/bin/x.p12" --password-file "$work/bin/password"
as root provider remove house --force >/dev/null
refused 4 "there is no key provider 'house'" as bin key status "$key" --provider house
