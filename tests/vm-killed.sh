#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 at each step of encrypt, recrypt and decrypt: nothing is lost, the same command goes on, others wait for it.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
vm_service
vm_make web 1

# at_each_step CHECK COMMAND...: killed at the first step, run again to be killed at the second step of what is left,
# and so on, until a run ends by itself. Each rerun begins where the last was killed.
at_each_step() {
    local check=$1 n=1 kills=0 code
    shift
    while :; do
        code=0
        RESEAL_VM_STOP_AT="#$n" vm "$@" web 2>err >out || code=$?
        [ "$code" = 137 ] || break
        kills=$((kills + 1))
        if [ -e web/web.reseal-intent ] && [ "$1" != decrypt ]; then
            vm_expect 3 'comes first' vm decrypt web
        fi
        # The first half: from the start each time; the second: one step further in one go.
        n=$((n + 1))
        [ $kills -lt 60 ] || fail "no end"
    done
    # Killed when it was done: what is left says that there is nothing to do.
    [ "$code" = 0 ] || grep -q 'nothing to do' err || fail "exit code $code: $(cat err)"
    [ $kills -gt 3 ] || fail "only $kills kills of $*"
    echo "killed $kills times: $*"
    vm_no_leftovers web
    $check
}

sealed() {
    [ "$(vm_field web "['encrypted']")" = True ] || fail "not encrypted"
    [ "$(vm_field web "['disks'][1]['encrypted']")" = True ] || fail "a disk is not encrypted"
    [ "$(vm_field web "['disks'][1]['key']")" = "$(vm_field web "['key']")" ] || fail "keys are mixed"
}
original() { vm_is_original web; }

at_each_step sealed encrypt
at_each_step sealed recrypt --shallow
at_each_step sealed recrypt --shallow --provider other
at_each_step sealed recrypt --deep
at_each_step original decrypt

# Killed before names change, it can be dropped; after that it can only go on.
code=0
RESEAL_VM_STOP_AT=copy:scsi0:0 vm encrypt web 2>/dev/null || code=$?
[ $code = 137 ] || fail "not killed"
vm_is_original web
vm repair --abandon web
vm_no_leftovers web
vm_is_original web
code=0
RESEAL_VM_STOP_AT=commit vm encrypt web 2>/dev/null || code=$?
[ $code = 137 ] || fail "not killed"
vm_expect 3 'past the point of return' vm repair --abandon web
vm encrypt web
sealed

# While a VM is made: it is there as a whole or not at all.
for n in 1 2 3 4; do
    code=0
    RESEAL_VM_STOP_AT="#$n" vm create --disk 1M --disk 1M new 2>/dev/null || code=$?
    [ $code = 137 ] || fail "not killed at step $n of create"
    [ ! -e new ] || fail "half a VM"
done
vm create --disk 1M --disk 1M new
vm unlock new
[ ! -e new.reseal-new ] || fail "the folder it was made in stayed"

# The services die: the command says so, and goes on when they are back.
vm decrypt web
head -c 24M /dev/urandom >web/system.img
cp web/system.img web.orig/system.img
vm encrypt web 2>err &
pid=$!
while [ ! -e web/system.img.reseal-new ] && kill -0 $pid 2>/dev/null; do :; done
kill -9 $(pgrep -P "$service_pid" -f reseal-keyd) 2>/dev/null || true
code=0
wait $pid || code=$?
[ $code = 0 ] || vm encrypt web
vm decrypt web
vm_is_original web
