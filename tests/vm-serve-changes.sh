#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `reseal vm serve` and commands that change the VM: what was interrupted comes first; a VM that is served counts as running,
# so that only its key can be changed; its disks are served once.
set -eu
. "$RESEAL_SOURCE/tests/support/vm-serve.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
need qemu-img
vm_service

# refused TEXT ARGUMENTS...: vm serve, on another socket, with exit code 3 and one line.
refused() {
    local text=$1
    shift
    vm_expect 3 "$text" timeout 60 reseal vm serve --socket "$work/second.sock" "$@" </dev/null
    [ "$(wc -l <expect.err)" = 1 ] || fail "$*: not one line: $(cat expect.err)"
    [ ! -s expect.out ] && [ ! -e "$work/second.sock" ] || fail "$*: it began to serve"
}

killed_at() {
    local step=$1 code=0
    shift
    RESEAL_VM_STOP_AT=$step vm "$@" 2>/dev/null || code=$?
    [ "$code" = 137 ] || fail "$* was not killed at $step: $code"
}

# Interrupted commands: before the point of return, and after it.
vm_make web 1
killed_at copy:scsi0:0 encrypt web
refused "an interrupted 'reseal vm encrypt' of web comes first: run it again, or drop it with reseal vm repair --abandon" web
vm repair --abandon web
refused 'has no encrypted disk to serve' web
vm encrypt web
for operation in 'recrypt --shallow' 'recrypt --deep'; do
    # shellcheck disable=SC2086  # words
    killed_at commit $operation web
    refused "an interrupted 'reseal vm $operation' of web comes first: run it again" web
    if grep -q abandon expect.err; then fail "it cannot be dropped any more: $(cat expect.err)"; fi
    # shellcheck disable=SC2086
    vm $operation web
done
printf '{' >web/web.reseal-intent
code=0
reseal vm serve web --socket "$work/second.sock" >expect.out 2>expect.err </dev/null || code=$?
[ "$code" = 5 ] && grep -q 'cannot be read' expect.err || fail "a damaged intent: $code, $(cat expect.err)"
rm web/web.reseal-intent

# While a command is at it.
mkfifo locked
python3 - web/web.reseal-lock locked <<'END' &
import fcntl, struct, sys, time
f = open(sys.argv[1], "r+b")
fcntl.fcntl(f, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 1, 1, 0))  # F_OFD_SETLK, byte 1
open(sys.argv[2], "w").close()
time.sleep(600)
END
holder=$!
read -r _ <locked || true
refused 'another command is changing web' web
kill "$holder"
wait "$holder" || true

# Served: only the key can be changed, and nobody else serves it.
serve_vm web
for change in 'decrypt' 'recrypt --deep' 'encrypt' 'repair'; do
    # shellcheck disable=SC2086
    vm_expect 3 'powered on' vm $change web
done
vm recrypt --shallow web
refused 'in use by another program' web
refused 'in use by another program' --disk web/system.img
refused 'in use by another program' --read-only --disk web/data.img
qemu-img compare -f raw -F raw web.orig/data.img "nbd+unix:///scsi0:1?socket=$socket" >/dev/null || fail "it is disturbed"
serve_stop
[ "$serve_code" = 0 ] || fail "exit code $serve_code: $(cat "$work/serve.err")"

# A disk of it alone counts, too.
serve_disk web/data.img
for change in 'decrypt' 'recrypt --deep'; do
    # shellcheck disable=SC2086
    vm_expect 3 'is powered on (scsi0:1 is in use by another program)' vm $change web
done
refused 'in use by another program' web
serve_stop

# Readers go together.
serve_run --read-only web
qemu-img compare -f raw -F raw web.orig/data.img "nbd+unix:///scsi0:1?socket=$socket" >/dev/null || fail "it cannot be read"
refused 'in use by another program' web
serve_stop
vm decrypt web
vm_is_original web
echo ok
