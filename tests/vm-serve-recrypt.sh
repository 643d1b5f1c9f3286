#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A VM with a disk of each format gets another key, shallow, while clients write to all disks, and the programs of the
# service are killed: every key is found again, no write is lost, and all data is there under the new key.
set -eu
. "$RESEAL_SOURCE/tests/support/vm-serve.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
need qemu-img qemu-io cryptsetup nbdcopy
vm_service

nodes=(scsi0:0 scsi0:1 scsi0:2 scsi0:3)
formats=(luks1 luks2 xts vmdk-xts)

# web: four disks; the last is a VMDK.
vm_make web 4
for i in 2 3; do head -c 4M /dev/urandom >"web/disk$i.img"; done
head -c 4M /dev/urandom >web/data.img
mv web/disk3.img web/disk3-flat.vmdk
cat >web/disk3.vmdk <<'END'
# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicFlat"

# Extent description
RW 8192 FLAT "disk3-flat.vmdk" 0

ddb.virtualHWVersion = "19"
END
cat >>web/web.vmx <<'END'
scsi0:2.present = "TRUE"
scsi0:2.fileName = "disk2.img"
scsi0:3.present = "TRUE"
scsi0:3.fileName = "disk3.vmdk"
END
for i in 0 1 2; do vm encrypt --home --disk "${nodes[i]}" --format "${formats[i]}" web; done
vm encrypt --disk scsi0:3 web
for i in 0 1 2 3; do
    [ "$(vm_field web "['disks'][$i]['format']")" = "${formats[i]}" ] || fail "disk $i is not ${formats[i]}: $(vm show web)"
done

disk() { printf 'nbd+unix:///%s?socket=%s' "$1" "$socket"; }
key_of() { vm_field web "['disks'][$1]['key']"; }

# Writes to all disks, in small requests, again and again until "$work/enough" is there; the last data is in $work/want.N.
write_until_enough() {
    local n=$1
    while :; do
        head -c 4M /dev/urandom >"$work/want.$n"
        nbdcopy --connections 2 --requests 2 --request-size 4096 --flush "$work/want.$n" "$(disk "${nodes[n]}")" || exit 1
        [ ! -e "$work/enough" ] || exit 0
    done
}

# Until the server said N times that it opened a key again.
opened() { grep -c 'key was opened again' "$work/serve.err" || true; }
wait_for_opened() {
    local _i
    for _i in $(seq 600); do
        [ "$(opened)" -lt "$1" ] || return 0
        sleep 0.1
    done
    fail "only $(opened) keys were opened again: $(cat "$work/serve.err")"
}

kill_service() {
    pkill -KILL -P "$service_pid" -x reseal-keyd || true
    pkill -KILL -P "$service_pid" -x reseald-work || true
}

serve_vm web
writers=()
for n in 0 1 2 3; do
    write_until_enough $n &
    writers+=($!)
done
for round in 1 2; do
    before=$(key_of 0)
    vm recrypt --shallow web
    [ "$(key_of 0)" != "$before" ] || fail "round $round: the key is the old one"
    kill_service
    wait_for_opened $((4 * round))
done
: >"$work/enough"
for pid in "${writers[@]}"; do wait "$pid" || fail "a write failed: $(cat "$work/serve.err")"; done

same() {
    local n
    for n in 0 1 2 3; do
        qemu-img compare -f raw -F raw "$work/want.$n" "$(disk "${nodes[n]}")" >"$work/said" 2>&1 ||
            fail "${formats[n]}: $(cat "$work/said" "$work/serve.err")"
    done
}
same
if grep -q 'cannot be opened' "$work/serve.err"; then fail "a key was missed for a while: $(cat "$work/serve.err")"; fi

# The command is killed between the headers and the .vmx: nobody else has the key's id then, and the keys are found anyhow.
code=0
RESEAL_VM_STOP_AT=header vm recrypt --shallow web 2>/dev/null || code=$?
[ $code = 137 ] || fail "it was not killed: $code"
kill_service
same
vm recrypt --shallow web
kill_service
same
serve_stop
[ "$serve_code" = 0 ] || fail "exit code $serve_code: $(cat "$work/serve.err")"

vm decrypt web
files=(system.img data.img disk2.img disk3-flat.vmdk)
for n in 0 1 2 3; do cmp "web/${files[n]}" "$work/want.$n" || fail "${formats[n]}: what was written is not there"; done
echo ok
