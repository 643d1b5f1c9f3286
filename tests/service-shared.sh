#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A service for several users: it becomes the user it is told, its group may connect and does what the policy says, the
# supervisor keeps no root rights, others are told that they may not.
set -u
bad=0
umask 022
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }
[ "$(id -u)" -eq 0 ] || { echo "only root can become another user"; exit 77; }
if ! command -v setpriv >/dev/null || ! getent passwd daemon nobody >/dev/null; then
    echo "no setpriv, or no users daemon and nobody"
    exit 77
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/reseal-test-XXXXXX") && chmod 755 "$work"
pid=
trap '[ -z "$pid" ] || { kill $pid; wait $pid; }; rm -rf "$work"' EXIT

# The build may lie where other users may not look.
install -m 755 "$RESEAL_BUILD"/bin/{reseald,reseald-work,reseal-keyd,reseal} "$work"
group=$(id -g daemon)
cat >"$work/policy.json" <<J
{"version": 1, "tenants": {"t": {"users": [$(id -u nobody)]}},
 "privileges": [{"to": "tenant:t", "allow": ["Cryptographer.Access"]}],
 "pairs": [{"for": "tenant:t", "from": "raw:a", "to": "raw:b", "grants": ["plain-out"]}]}
J
mkfifo "$work/ready"
"$work/reseald" --runtime-dir "$work/run" --policy "$work/policy.json" --user daemon --ready-fd 9 9>"$work/ready" &
pid=$!
read -r line <"$work/ready"
[ "$line" = ready ] || fail "the service says '$line'"

for p in $pid $(ps -o pid= --ppid $pid); do
    users=$(awk '/^Uid:/ { print $2, $3, $4, $5 }' "/proc/$p/status" 2>/dev/null | tr ' ' '\n' | sort -u)
    # The one that asks whether the service answers ends when it has its answer.
    [ -n "$users" ] || [ -e "/proc/$p" ] || continue
    [ "$users" = "$(id -u daemon)" ] || fail "$(cat "/proc/$p/comm") has not become daemon"
done

as() { # as GROUP COMMAND...: user nobody with that group
    local g=$1
    shift
    setpriv --reuid=nobody --regid=nogroup --groups="$g" "$@"
}
line=$(as "$(id -g nobody)" "$work/reseal" status --runtime-dir "$work/run" 2>&1) && fail "a user out of the group may connect"
grep -qi 'not granted\|permission\|may not\|policy' <<<"$line" || fail "a user out of the group is told: $line"
as "$group" "$work/reseal" status --runtime-dir "$work/run" >/dev/null || fail "a user of the group may not connect"

line=$("$work/reseal" provider list --runtime-dir "$work/run" 2>&1)
[ $? -eq 3 ] && grep -q 'in no tenant' <<<"$line" || fail "root, whom the policy does not name, is told: $line"

mkdir "$work/mine" && chown nobody "$work/mine"
head -c 64 /dev/urandom >"$work/mine/a" && head -c 64 /dev/urandom >"$work/mine/b" && head -c 1M /dev/urandom >"$work/mine/disk"
chmod 600 "$work"/mine/* && chown nobody "$work"/mine/*
transcode() {
    as "$group" "$work/reseal" transcode -q --runtime-dir "$work/run" --force "xts:$work/mine/disk,key=$work/mine/$1,name=$1" \
        "xts:$work/mine/out,key=$work/mine/$2,name=$2"
}
transcode a b >"$work/log" 2>&1 || fail "a listed pair: $(cat "$work/log")"
transcode b a >"$work/log" 2>&1
code=$?
[ $code -eq 3 ] || fail "an unlisted pair is exit code $code: $(cat "$work/log")"
exit $bad
