#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Chains of VMDK descriptors whose key cannot change: trees, linked clones, loops and links that are not there are refused, and nothing
# changes.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
. "$RESEAL_SOURCE/tests/support/vmdk.sh"
vm_service

machine web system
machine one base
link one base web
parent web system base.vmdk

state() { find "$1" -type f -exec sha256sum {} + | sort; }
refused() {
    local code=$1 words=$2 before
    before=$(state web)
    vm_expect "$code" "$words" vm recrypt --shallow web
    vm show web >shown
    grep -q "$words" shown || fail "show does not say '$words'"
    [ "$(state web | grep -v reseal-lock)" = "$(grep -v reseal-lock <<<"$before")" ] || fail "'$words', and something was changed"
}
parent web base system.vmdk
refused 5 'ends in itself'
parent web base base.vmdk
refused 5 'ends in itself'
parent web base gone.vmdk
refused 6 'gone.vmdk'
head -c 1M /dev/zero >web/raw.img
parent web base raw.img
refused 5 'no VMDK descriptor'
vmdk web link
for i in $(seq 1 33); do
    { cat web/link.vmdk; printf 'parentFileNameHint="link%d.vmdk"\n' $((i + 1)); } >web/link$i.vmdk
done
parent web base link1.vmdk
refused 5 'too long'
rm web/link*

# A linked clone: by name, from the root, and through a link.
machine golden image
parent web base ../golden/image.vmdk
refused 3 'linked clone'
parent web system ../golden/image.vmdk
for c in "recrypt --deep" decrypt; do
    # shellcheck disable=SC2086  # a command and its option
    vm_expect 3 'linked clone' vm $c web
done
parent web system base.vmdk
vm_expect 3 'has snapshots' vm decrypt web
parent web base "$work/golden/image.vmdk"
refused 3 'linked clone'
ln -s ../golden/image.vmdk web/image.vmdk
parent web base image.vmdk
refused 3 'linked clone'
rm web/image.vmdk
sed -i '/^parentFileNameHint/d' web/base.vmdk
vm recrypt --shallow web
[ "$(vm_field web "['disks'][1]['key']")" = "$(vm_field web "['key']")" ] || fail "the chain was not mended"

# A tree: two disks with one parent, and a disk that is the parent of another.
machine tree left right
machine three root
link three root tree
parent tree left root.vmdk
parent tree right root.vmdk
vm_expect 3 'tree of snapshots' vm recrypt --shallow tree
parent tree right left.vmdk
vm_expect 3 'tree of snapshots' vm recrypt --shallow tree
sed -i '/^parentFileNameHint/d' tree/right.vmdk
vm recrypt --shallow tree
[ "$(vm_field tree "['disks'][2]['key']")" = "$(vm_field tree "['key']")" ] || fail "the root has another key"
