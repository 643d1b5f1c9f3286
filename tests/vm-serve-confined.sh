#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `reseal vm serve` gives up what it does not need before it listens to clients: dumps, new privileges, files, system calls.
# It can still open keys again, see a disk grow, and clean up at its end.
set -eu
. "$RESEAL_SOURCE/tests/support/vm-serve.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
need qemu-io cryptsetup nbdinfo
vm_service

status_of() { sed -n "s/^$1:[[:space:]]*//p" "/proc/$serve_pid/status"; }

assert_confined() {
    [ "$(status_of NoNewPrivs)" = 1 ] || fail "it could get new privileges"
    # A sanitizer's run-time library needs more than the rest leaves.
    ! grep -q '^RESEAL_SANITIZE:STRING=.' "$RESEAL_BUILD/CMakeCache.txt" || return 0
    if [ -e /proc/sys/kernel/seccomp/actions_avail ]; then
        [ "$(status_of Seccomp)" = 2 ] || fail "no filter of system calls: $(status_of Seccomp)"
    fi
    grep -q '^Max core file size *0 *0' "/proc/$serve_pid/limits" || fail "it could leave a core file"
    # Only root may look into a process that cannot be dumped.
    [ "$(stat -c %u "/proc/$serve_pid/fd")" = 0 ] || fail "it can be dumped"
}

kill_service() {
    pkill -KILL -P "$service_pid" -x reseal-keyd || true
    pkill -KILL -P "$service_pid" -x reseald-work || true
}

io() { qemu-io -f raw -c "$1" "$2" >"$work/said" 2>&1 && ! grep -q failed "$work/said" || fail "$1: $(cat "$work/said" "$work/serve.err")"; }

# A VM, whose keys are named by its .vmx and by headers; one under a pass phrase from a file. Past the page cache, too.
vm_make web 1
vm encrypt --format luks1 web
for options in web '--cache none web'; do
    # shellcheck disable=SC2086  # words
    serve_run $options
    assert_confined
    at="nbd+unix:///scsi0:1?socket=$socket"
    io 'write -P 0x21 0 512k' "$at"
    for _ in 1 2; do
        vm recrypt --shallow web
        kill_service
        io 'read -P 0x21 0 512k' "$at"
    done
    grep -q 'key was opened again' "$work/serve.err" || fail "no key was opened again: $(cat "$work/serve.err")"
    truncate -s +1M web/data.img
    nbdinfo --size "$at" >"$work/said"
    io 'write -P 0x22 -f 600k 8k' "$at"
    serve_stop
    [ "$serve_code" = 0 ] || fail "exit code $serve_code: $(cat "$work/serve.err")"
    [ ! -e "$socket" ] || fail "the socket stays behind"
done

make_disk "$work/disk.luks" 4M luks2 4096
serve_start --discard --disk "$work/disk.luks"
assert_confined
io 'write -P 0x23 0 2M' "$uri"
io 'discard 2M 1M' "$uri"
kill_service
io 'read -P 0x23 0 2M' "$uri"
serve_stop
[ "$serve_code" = 0 ] || fail "exit code $serve_code: $(cat "$work/serve.err")"
echo ok
