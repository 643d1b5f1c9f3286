# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# VMs whose disks are VMDK descriptors, for script tests. Source vm.sh first.
#
#   vmdk FOLDER NAME           a descriptor with an extent of noise
#   machine NAME DISK...       an encrypted VM with these disks; the plain extents are in NAME.orig
#   parent FOLDER NAME HINT    gives a descriptor a parent
#   link FROM NAME VM          a disk of another VM, with a key of its own, comes to lie with this one's
#   mixed_told                 how often mixed keys were told

vmdk() {
    head -c 1M /dev/urandom >"$1/$2-flat.vmdk"
    printf '# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 2048 FLAT "%s-flat.vmdk" 0\n' \
        "$2" >"$1/$2.vmdk"
}

machine() {
    local name=$1 n=0 d
    shift
    mkdir "$name"
    printf 'displayName = "%s"\n' "$name" >"$name/$name.vmx"
    for d; do
        vmdk "$name" "$d"
        printf 'scsi0:%d.fileName = "%s.vmdk"\n' $((n++)) "$d" >>"$name/$name.vmx"
    done
    cp -r "$name" "$name.orig"
    vm encrypt "$name"
}

parent() {
    sed -i '/^parentFileNameHint/d' "$1/$2.vmdk"
    printf 'parentFileNameHint="%s"\n' "$3" >>"$1/$2.vmdk"
}

link() {
    mv "$1/$2.vmdk" "$1/$2-flat.vmdk" "$1/$2.vmdk.reseal-header" "$3/"
    cp "$1.orig/$2-flat.vmdk" "$3.orig/"
}

mixed_told() { grep -c 'DiskchainUsingMixedKeys' "$work/run/state/events.jsonl" || true; }
