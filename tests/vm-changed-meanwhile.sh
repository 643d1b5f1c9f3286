#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A change that was interrupted, and files that somebody wrote to before it went on: the guest's writes count, not a copy made before.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
vm_service

# stopped STEP COMMAND...: killed there
stopped() {
    local step=$1 got=0
    shift
    RESEAL_VM_STOP_AT=$step vm "$@" 2>/dev/null || got=$?
    [ "$got" = 137 ] || fail "not killed at $step: exit code $got"
}
write_to() { printf 'written by the guest' | dd of="$1" bs=1 seek=5000 conv=notrunc status=none; }

# In the first half: begun anew, and said.
for case in system.img:nvram system.img:copy:scsi0:0 web.nvram:nvram web.vmx:copied; do
    file=${case%%:*} step=${case#*:}
    rm -rf web
    vm_make web 1
    stopped "$step" encrypt web
    if [ "$file" = web.vmx ]; then echo 'memsize = "4096"' >>web/web.vmx; else write_to "web/$file"; fi
    cp "web/$file" new
    vm encrypt web 2>err || fail "not gone on with after $step: $(cat err)"
    grep -q "warning: .*web/$file was changed since 'encrypt' was interrupted: it begins anew" err ||
        fail "not said, $file after $step: $(cat err)"
    vm decrypt web
    cmp "web/$file" new || fail "what was written to $file after $step is lost"
    vm_no_leftovers web
done

# Nothing was written: gone on with, not begun anew.
rm -rf web
vm_make web 1
stopped copy:scsi0:0 encrypt web
vm encrypt web 2>err
[ ! -s err ] || fail "begun anew: $(cat err)"
vm decrypt web
vm_is_original web

# The VM runs when the command is given again.
stopped copy:scsi0:0 encrypt web
mkdir web/web.vmx.lck
vm_expect 3 'web is powered on' vm encrypt web
rmdir web/web.vmx.lck
vm encrypt web
vm decrypt web
vm_is_original web

# Past the point of return what was written is kept, and said.
stopped commit encrypt web
write_to web/data.img
cp web/data.img new
vm encrypt web 2>err
grep -q 'warning: .*web/data.img.reseal-kept is what was written' err || fail "not said: $(cat err)"
cmp web/data.img.reseal-kept new || fail "what was written was not kept"
[ "$(vm_field web "['disks'][1]['encrypted']")" = True ] || fail "the change did not come to its end"
vm decrypt web
rm web/data.img.reseal-kept
vm_is_original web

# An encrypted disk that was served in between, or written to as it is.
vm encrypt web

stopped copy:scsi0:0 recrypt --deep web
printf x | dd of=web/system.img bs=1 seek=16800000 conv=notrunc status=none
cp web/system.img new
vm recrypt --deep web 2>err
grep -q 'begins anew' err || fail "not said: $(cat err)"

# A disk that a program writes is not converted.
rm -rf web
vm_make web 1
python3 - web/data.img <<'END' &
import fcntl, struct, sys, time
f = open(sys.argv[1], 'rb')
fcntl.fcntl(f, 37, struct.pack('hhqqi4x', fcntl.F_RDLCK, 0, 101, 1, 0))  # as QEMU shows that it writes
open('locked', 'w').close()
time.sleep(600)
END
holder=$!
until [ -e locked ]; do kill -0 $holder; done
vm_expect 3 'in use by another program' vm encrypt web
kill $holder
wait $holder 2>/dev/null || true
vm encrypt web

# A disk that was being added.
vm decrypt web
vm encrypt web
stopped home add-disk --size 1M web
touch web/web.vmx
vm add-disk --size 1M web 2>err || fail "add-disk does not go on: $(cat err)"
grep -q 'begins anew' err || fail "not said: $(cat err)"
[ "$(vm_field web "['disks'].__len__()")" = 3 ] || fail "not one disk more"
vm_no_leftovers web
