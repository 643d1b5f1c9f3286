#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A cluster of three hosts, each in a network namespace of its own, and a manager with a KMIP server: every host gets the keys,
# a disk that one made opens on another, one that is cut off is told as an event and gets its keys when it is back, one that began
# anew gets them again, and native providers come and go with the manager's.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/kmip.sh"
[ "$(id -u)" -eq 0 ] || { echo "network namespaces need root"; exit 77; }
command -v ip >/dev/null || { echo "no ip(8): apt-get install iproute2"; exit 77; }

id=$(($$ % 65536))
net=10.213.$((id % 250))
bridge=rsb$id
hosts=(a b c)
declare -A host_pids=()
cleanup() {
    local status=$? h
    set +e
    for h in "${!host_pids[@]}"; do kill -TERM "${host_pids[$h]}" 2>/dev/null || true; done
    for h in "${!host_pids[@]}"; do wait "${host_pids[$h]}" 2>/dev/null || true; done
    for h in "${hosts[@]}"; do ip netns del "rs$id$h" 2>/dev/null || true; done
    ip link del "$bridge" 2>/dev/null || true
    (exit $status)
    kmip_cleanup
}
trap cleanup EXIT

ip netns add "rs${id}a" 2>/dev/null || { echo "this kernel or container gives no network namespaces"; exit 77; }
ip netns del "rs${id}a"
ip link add "$bridge" type bridge && ip addr add "$net.1/24" dev "$bridge" && ip link set "$bridge" up

# until_true TEXT COMMAND...: waits until it succeeds.
until_true() {
    local text=$1 tries=0
    shift
    until "$@" >"$work/tried" 2>&1; do
        [ $((tries += 1)) -lt 600 ] || { reseal host list; fail "$text: $(cat "$work/tried")"; }
        sleep 0.1
    done
}

# told ID PATTERN: an event of the manager with that comes.
told() { until_true "no event $1 $2" grep -q "\"id\":\"$1\".*$2" "$RESEAL_RUNTIME_DIR/state/events.jsonl"; }

host_address() { printf '%s.1%s' "$net" "$(($(printf '%d' "'$1") - 96))"; }
host_start() { # in its namespace, with its own folder
    rm -f "$work/ready-$1"
    mkfifo "$work/ready-$1"
    mkdir -p -m 700 "$work/$1"
    ip netns exec "rs$id$1" "$RESEAL_BUILD/bin/reseald" --runtime-dir "$work/$1" --agent "$(host_address "$1"):7443" \
        --ready-fd 9 9>"$work/ready-$1" </dev/null >>"$work/$1.log" 2>&1 &
    host_pids[$1]=$!
    read -r _ <"$work/ready-$1" || fail "host $1 does not start: $(cat "$work/$1.log")"
}
on() { # on HOST COMMAND...: reseal there
    local h=$1
    shift
    RESEAL_RUNTIME_DIR=$work/$h reseal "$@"
}
fingerprint() { sed -n 's/.*"fingerprint": "\([0-9a-f]*\)".*/\1/p'; }

for h in "${hosts[@]}"; do
    ip netns add "rs$id$h"
    ip link add "rs$id$h" type veth peer name eth0 netns "rs$id$h"
    ip link set "rs$id$h" master "$bridge" up
    ip -n "rs$id$h" addr add "$(host_address "$h")/24" dev eth0
    ip -n "rs$id$h" link set eth0 up
    ip -n "rs$id$h" link set lo up
    host_start "$h"
done
kmip=$(kmip_port)
kmip_start "$kmip"
service_start </dev/null >"$work/reseald.log" 2>&1

# Nobody trusts anybody before it is told to.
manager=$(reseal host state --json | fingerprint)
on a host state | grep -q 'state: incapable' || fail "a host without a manager takes keys"
refused 3 'not confirmed' reseal host add a "$(host_address a)"
for h in "${hosts[@]}"; do
    reseal host add "$h" "$(host_address "$h"):7443" --cluster prod --fingerprint "$(on "$h" host state --json | fingerprint)"
done
told com.vmware.vc.host.Crypto.SendKeyError.HostError "reseal host trust $manager"
for h in "${hosts[@]}"; do on "$h" host trust "$manager"; done
on a host state | grep -q 'state: prepared' || fail "a host with a manager is prepared"

# One key for all; the manager keeps its id.
reseal provider add vault --server "127.0.0.1:$kmip" --ca "$pki/ca.crt" --cert "$pki/alice.crt" --key "$pki/alice.key" \
    --timeout 30 >/dev/null
key=$(reseal key make --provider vault)
for h in "${hosts[@]}"; do until_true "host $h has no key" on "$h" key status --cached "$key" --provider vault; done
grep -q "\"$key\"" "$RESEAL_RUNTIME_DIR/state/cluster-keys.jsonl" || fail "the id is not kept"

# A VM and its disk that one made open on another. No host has a key server.
vm() { "$@" --safe-dir "$work/vmx" -q >"$work/out" 2>&1 || fail "$*: $(cat "$work/out")"; }
vm reseal vm create "$work/web" --disk 8M --provider vault --policy-dir "$RESEAL_SOURCE/docs/examples/storage-policies"
last=$(sed -n 's/.*"vault","\([^"]*\)".*/\1/p' "$RESEAL_RUNTIME_DIR/state/cluster-keys.jsonl" | tail -n 1)
for h in "${hosts[@]}"; do
    until_true "host $h has no key of the VM" on "$h" key status --cached "$last" --provider vault
    vm on "$h" vm unlock "$work/web"
done

# One is cut off: an event, and the others go on.
ip link set "rs${id}c" down
second=$(reseal key make --provider vault)
for h in a b; do until_true "host $h has no second key" on "$h" key status --cached "$second" --provider vault; done
told com.vmware.vc.host.Crypto.SendKeyError.HostError '"host":"c".*"missing":1'
on c key status --cached "$key" --provider vault >/dev/null || fail "what it has it keeps"
ip link set "rs${id}c" up
until_true "host c has no second key" on c key status --cached "$second" --provider vault
told reseal.host.Connected '"host":"c"'

# One begins anew: its memory is empty, and it gets all again.
kill -KILL "$(pgrep -P "${host_pids[b]}" -x reseal-keyd)"
told reseal.host.Restarted '"host":"b"'
for k in "$key" "$second"; do until_true "host b has not its keys again" on b key status --cached "$k" --provider vault; done
vm on b vm unlock "$work/web"

# A native provider is on all hosts, which then need nobody to make and open keys; and goes from all.
printf 'a long enough password\n' >"$work/password" && chmod 600 "$work/password"
reseal provider add safe --native >/dev/null
reseal provider export safe --output "$work/safe.p12" --password-file "$work/password" >/dev/null
for h in "${hosts[@]}"; do until_true "host $h has no native provider" on "$h" provider test safe; done
own=$(on a key make --provider safe)
on b key status "$own" --provider safe >/dev/null || fail "host b does not open what host a made"
vm on a vm create "$work/vm" --disk 8M --provider safe --policy-dir "$RESEAL_SOURCE/docs/examples/storage-policies"
vm on b vm unlock "$work/vm"
reseal provider remove safe --force >/dev/null
for h in "${hosts[@]}"; do until_true "host $h keeps the provider" bash -c "! RESEAL_RUNTIME_DIR=$work/$h reseal provider test safe"; done

# A host key makes it safe.
reseal host prepare a
until_true "host a is not safe" bash -c "RESEAL_RUNTIME_DIR=$work/a reseal host state | grep -q 'state: safe'"
until_true "the manager does not know" bash -c "reseal host list | grep '^a .* safe '"
exit 0
