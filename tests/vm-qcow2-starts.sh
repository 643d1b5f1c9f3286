#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A VM with ten LUKS over qcow2 disks: to look at it starts no program, a shallow recrypt one for each disk, and writes of each
# what changes. What cannot be read without QEMU is read by QEMU.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
command -v qemu-img >/dev/null && command -v qemu-nbd >/dev/null || { echo "qemu-utils is not installed"; exit 77; }
cc=$(command -v cc || command -v gcc || command -v clang) || { echo "no C compiler to build the preload with"; exit 77; }
vm_service
"$cc" -shared -fPIC -O1 -D_GNU_SOURCE -o starts.so "$RESEAL_SOURCE/tests/support/preload/starts.c" -ldl
preload=$PWD/starts.so
# A program with a sanitizer wants its library first.
if nm -D "$RESEAL_BUILD/bin/reseal" 2>/dev/null | grep -q ' __asan_init'; then
    preload=$(cc -print-file-name=libasan.so):$preload
fi

# starts COUNT COMMAND...: how many programs a command starts.
starts() {
    local want=$1 got
    shift
    : >starts.log
    STARTS=$PWD/starts.log LD_PRELOAD=$preload vm "$@" >said 2>&1 || fail "$*: $(cat said)"
    got=$(grep -cx qemu-nbd starts.log || true)
    [ "$got" = "$want" ] || fail "$* started qemu-nbd $got times, not $want"
    [ "$(wc -l <starts.log)" = "$want" ] || fail "$* started others: $(sort starts.log | uniq -c)"
}
image() { qemu-img "$@" >"$work/said" 2>&1 || fail "qemu-img $*: $(cat "$work/said")"; }
written() { qemu-img map --output=json -f qcow2 "$1" | python3 -c 'import json,sys; print(sum(e["length"] for e in json.load(sys.stdin) if e["data"]))'; }
# What is behind the first MiB of a container's header: noise of its format, nothing that counts.
noise() { qemu-img dd -f qcow2 -O raw bs=1M skip=1 count=15 if="$1" of="$2" >/dev/null; }

vm_make web 1
rm web/system.img web/data.img
sed -i '/^scsi0:[01]/d' web/web.vmx
for i in 0 1 2 3 4 5 6 8 9 10; do
    image create -f qcow2 "web/d$i.qcow2" 20M
    printf 'scsi0:%d.present = "TRUE"\nscsi0:%d.fileName = "d%d.qcow2"\n' "$i" "$i" "$i" >>web/web.vmx
done
starts 0 show web
vm encrypt web
starts 0 show --json web
key=$(vm_field web "['disks'][9]['key']")
before=$(written web/d3.qcow2)
noise web/d3.qcow2 noise.before
image bitmap --add web/d3.qcow2 b0

# The first and the next ones are alike.
for _ in 1 2; do
    starts 10 recrypt --shallow web
    vm_no_leftovers web
    [ "$(vm_field web "['disks'][9]['key']")" != "$key" ] || fail "the key is the same"
    key=$(vm_field web "['disks'][9]['key']")
done
[ "$(written web/d3.qcow2)" = "$before" ] || fail "it stores $(written web/d3.qcow2) bytes, not $before"
noise web/d3.qcow2 noise.after
cmp noise.before noise.after || fail "what does not count was written"
image check -f qcow2 web/d3.qcow2
image info -f qcow2 web/d3.qcow2
grep -q 'in-use' said && fail "the bitmap was not saved"

# No QEMU at all: it is shown; nothing is begun that could not be ended.
mkdir empty
without() { PATH="$RESEAL_BUILD/bin:$PWD/empty" "$RESEAL_BUILD/bin/reseal" vm "$@"; }
without show --json web >show.json
grep -q luks2-qcow2 show.json || fail "it is not shown without qemu-nbd"
vm_expect 5 'Debian: qemu-utils' without recrypt --shallow --safe-dir "$safe" web
vm_no_leftovers web
[ "$(vm_field web "['disks'][9]['key']")" = "$key" ] || fail "the key was changed"

# Other tables, and one that leads out of the file.
uuid=$(vm_field web "['disks'][1]['uuid']")
for form in compat=0.10 cluster_size=512 cluster_size=2M; do
    image convert -f qcow2 -O qcow2 -o $form web/d1.qcow2 other.qcow2
    mv other.qcow2 web/d1.qcow2
    starts 0 show web
    [ "$(vm_field web "['disks'][1]['uuid']")" = "$uuid" ] || fail "$form: another header is read"
    [ "$(vm_field web "['disks'][1]['available']")" = True ] || fail "$form: no key"
done
starts 10 recrypt --shallow web
image check -f qcow2 web/d1.qcow2

# Compressed clusters are QEMU's business, and so is what is damaged.
image convert -c -f qcow2 -O qcow2 web/d1.qcow2 packed.qcow2
mv packed.qcow2 web/d1.qcow2
starts 1 show web
[ "$(vm_field web "['disks'][1]['uuid']")" = "$uuid" ] || fail "compressed: another header is read"
printf '\377' | dd of=web/d2.qcow2 bs=1 seek=40 conv=notrunc 2>/dev/null
starts 2 show web
[[ $(vm_field web "['disks'][2]['problem']") = *'QEMU refuses it'* ]] || fail "a damaged one is not told"
echo ok
