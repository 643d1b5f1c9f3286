#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What `reseal vm serve` refuses: one line that says why, the documented exit code, no socket left behind, and the image as it was.
set -eu
. "$RESEAL_SOURCE/tests/support/vm-serve.sh"
need cryptsetup qemu-io
service_start
make_disk "$work/disk.luks" 8M luks2 4096
cp "$work/disk.luks" "$work/was"

within=()
# refused CODE TEXT ARGUMENTS...
refused() {
    local want=$1 text=$2 code=0
    shift 2
    timeout 60 "${within[@]}" reseal vm serve --socket "$socket" "$@" >"$work/out" 2>"$work/err" </dev/null || code=$?
    [ "$code" = "$want" ] || fail "$*: exit code $code, not $want: $(cat "$work/err")"
    [ "$(wc -l <"$work/err")" = 1 ] || fail "$*: not one line: $(cat "$work/err")"
    grep -qF -- "$text" "$work/err" || fail "$*: '$text' is not in: $(cat "$work/err")"
    [ ! -s "$work/out" ] || fail "$*: it prints: $(cat "$work/out")"
    [ "${busy:-}" ] || [ ! -e "$socket" ] || fail "$*: it leaves a socket behind"
    cmp -s "$work/disk.luks" "$work/was" || fail "$*: the image is another one"
}
p="--passphrase-file $work/pass"
# shellcheck disable=SC2086  # two words
{
    refused 2 'give a VM, or its disks'
    refused 2 "--cache is" --disk "$work/disk.luks" --cache all
    refused 2 'two disks are called' --disk "$work/disk.luks" --disk "$work/disk.luks" $p
    refused 2 'one VM only' "$work" "$work"
    refused 4 'give --passphrase-file' --disk "$work/disk.luks"
    printf wrong >"$work/wrong"
    chmod 600 "$work/wrong"
    refused 4 'pass phrase' --disk "$work/disk.luks" --passphrase-file "$work/wrong"
    refused 6 'No such file' --disk "$work/nothing" $p
    head -c 8M /dev/zero >"$work/zeros"
    refused 5 'is no LUKS image' --disk "$work/zeros" $p
    : >"$work/empty"
    refused 5 "$work/empty" --disk "$work/empty" $p
    head -c 20M "$work/disk.luks" >"$work/short"
    refused 5 "$work/short" --disk "$work/short" $p
    head -c 3000 "$work/disk.luks" >"$work/shorter"
    refused 5 "$work/shorter" --disk "$work/shorter" $p
    refused 1 'no .vmx' "$work/run"
    # What cannot be written: a file, or for root a file system.
    mkdir "$work/fixed"
    cp "$work/disk.luks" "$work/fixed/disk.luks"
    chmod 400 "$work/fixed/disk.luks"
    if [ "$(id -u)" = 0 ]; then
        within=(unshare -m sh -c 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"' "$work/fixed")
    fi
    if "${within[@]:-env}" true 2>/dev/null; then
        refused 3 'give --read-only to serve it as it is' --disk "$work/fixed/disk.luks" $p
    fi
    within=()
    # One of two is wrong: none is served.
    refused 5 'is no LUKS image' --disk "$work/disk.luks" --disk "$work/zeros" $p
    : >"$work/file"
    socket=$work/file busy=1 refused 3 'is no socket' --disk "$work/disk.luks" $p

    # In use: by another server, and by a program that locks as QEMU does. Readers go together.
    serve_start --read-only --disk "$work/disk.luks"
    busy=1 refused 3 'in use by another program' --disk "$work/disk.luks" $p
    make_disk "$work/other.luks" 8M luks1 512
    busy=1 refused 3 'is served by another program' --disk "$work/other.luks" $p
    kill -KILL "$serve_pid"
    wait "$serve_pid" || true
    serve_pid=
    # What a killed server leaves behind is in nobody's way.
    serve_start --disk "$work/disk.luks" --disk "two=$work/other.luks"
    qemu-io -r -f raw -c 'read 0 4096' "nbd+unix:///two?socket=$socket" >/dev/null || fail "the second disk is not there"
    [ "$(stat -c %a "$socket")" = 600 ] || fail "the socket is open to others"
    serve_stop
    service_stop

    # Without the grant plain-out, and without a service.
    # policy GRANTS
    policy() {
        cat >"$work/policy" <<POLICY
{"version": 1, "tenants": {"t": {"users": [$(id -u)]}}, "privileges": [{"to": "tenant:t", "allow": ["Cryptographer.Access"]}],
 "pairs": [{"for": "tenant:t", "from": "luks:*", "to": "plain", "grants": [$1]}, {"for": "tenant:t", "from": "plain", "to": "luks:*", "grants": [$1]}]}
POLICY
        chmod 600 "$work/policy"
    }
    policy ''
    service_start --policy "$work/policy"
    refused 3 "$work/disk.luks" --disk "$work/disk.luks" $p
    service_stop
    # Taken back while it serves: requests fail, and no key is left behind by each attempt to go on.
    policy '"plain-out"'
    service_start --policy "$work/policy"
    serve_start --disk "$work/disk.luks"
    qemu-io -r -f raw -c 'read 0 4096' "$uri" >/dev/null || fail "it does not serve"
    policy ''
    pkill -KILL -P "$service_pid" -x reseal-keyd
    pkill -KILL -P "$service_pid" -x reseald-work
    if qemu-io -r -f raw -c 'read 0 4096' "$uri" >"$work/io" 2>&1 && ! grep -q failed "$work/io"; then
        fail "it goes on without the grant"
    fi
    grep -q 'its key cannot be opened again' "$work/serve.err" || fail "it does not say why: $(cat "$work/serve.err")"
    for _ in $(seq 600); do # one that was opened in vain is there for a moment
        keys=$(reseal status --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["key_service"]["keys"])')
        [ "$keys" != 0 ] || break
        sleep 0.1
    done
    [ "$keys" = 0 ] || fail "$keys keys are left behind"
    serve_stop
    service_stop
    refused 7 'service' --disk "$work/disk.luks" $p
}
echo ok
