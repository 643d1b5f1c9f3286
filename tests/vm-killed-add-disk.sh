#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 at each step of vm add-disk and remove-disk, and before some of their changes of files: nothing is lost, nothing is half
# there, the same command goes on.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
. "$RESEAL_SOURCE/tests/support/killed.sh"
# Killed when all was done, the same command finds its disk there, or gone.
killed_over='is taken by\|has no disk'
killed_change() {
    head -c 1M /dev/urandom >web/more.img
    cp web/more.img more.orig
}
killed_service
count=${KILLED_POINTS:-3}

# nodes WANTED: those of the VM; then it is decrypted, and its own disks are what they were.
nodes() {
    vm show --json web >show
    python3 -c "
import json, sys
v = json.load(open('show'))
assert v['encrypted'] and {d['node']: d['format'] for d in v['disks']} == $1, v" || fail "$what: $(cat show)"
    vm unlock web
    vm decrypt web
    for f in system.img data.img web.nvram; do cmp "plain/web/$f" "web/$f" || fail "$what: $f is not what it was"; done
}
two="'scsi0:0': 'luks2', 'scsi0:1': 'luks2'"
new() { nodes "{$two, 'scsi0:3': 'luks2'}"; [ "$(stat -c %s web/web_1.img)" = 1048576 ] || fail "$what: another size"; }
beside() { nodes "{$two, 'scsi0:3': 'xts'}"; [ ! -e web/web_1.img.reseal-header ] || fail "$what: a header stayed"; }
image() { nodes "{$two, 'scsi0:3': 'luks1'}"; cmp more.orig web/more.img || fail "$what: the image is not what it was"; }
open() { vm show web >show; grep -q 'scsi0:3 .*more.img, raw' show || fail "$what: $(cat show)"; cmp more.orig web/more.img; }

killed_at_each_step sealed image add-disk --image web/more.img --format luks1 --node scsi0:3
killed_at_changes "$count" sealed new add-disk --size 1M --node scsi0:3
killed_at_changes "$count" sealed beside add-disk --size 1M --format xts --node scsi0:3
killed_at_changes "$count" plain open add-disk --image web/more.img --plain --node scsi0:3

# A second run adds no second disk, before the answer was given or after.
for step in safe told; do
    killed_restore sealed
    code=0
    RESEAL_VM_STOP_AT=$step reseal vm add-disk --safe-dir "$safe" --size 1M web >out 2>&1 || code=$?
    [ $code = 137 ] || fail "not killed at $step"
    [ $step = safe ] || grep -q 'scsi0:2 is .*web_1.img' out || fail "no answer: $(cat out)"
    vm add-disk --size 1M web
    vm_no_leftovers web
    what="add-disk without a node, killed at $step"
    nodes "{$two, 'scsi0:2': 'luks2'}"
done

gone() {
    vm show --json web >show
    python3 -c "
import json
v = json.load(open('show'))
assert v['encrypted'] and [d['node'] for d in v['disks']] == ['scsi0:0'], v" || fail "$what: $(cat show)"
    vm unlock web
    cmp web/data.img sealed/web/data.img || fail "$what: the image of the disk that was taken out changed"
}
killed_at_changes "$count" sealed gone remove-disk --disk scsi0:1

# Before names change it can be dropped, and nothing stays.
for command in 'add-disk --size 1M' 'add-disk --image web/more.img'; do
    killed_restore sealed
    code=0
    # shellcheck disable=SC2086
    RESEAL_VM_STOP_AT=copied vm $command web 2>/dev/null || code=$?
    [ $code = 137 ] || fail "not killed"
    vm repair --abandon web
    vm_no_leftovers web
    diff -r -x '*.reseal-lock' sealed/web web || fail "not what it was"
done
echo ok
