#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Each kind of bad input: its exit code, one line that says what is wrong, and nothing written.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/images.sh"
service_start

content raw 4
qemu_luks one.luks old raw
luks2 two.luks old raw 512
head -c 64 /dev/urandom >k1
ok="reseal transcode -q $fast $old_new"

expect 4 'wrong pass phrase for one.luks' reseal transcode $new_old luks:one.luks luks:out
expect 5 'is not a LUKS image' $ok luks:raw luks:out
expect 5 'is not a LUKS image' $ok luks:k1 luks:out
expect 6 'No such file' $ok luks:nothing luks:out
expect 2 'neither a file nor a block device' $ok luks:/dev/null luks:out
expect 2 'same file' $ok luks:one.luks luks:one.luks
ln one.luks linked.luks
expect 2 'same file' $ok luks:one.luks luks:./linked.luks
expect 3 'there already' $ok luks:one.luks luks:two.luks
expect 2 'say what it is' $ok one.luks luks:out
expect 2 'key file is missing' $ok luks:one.luks xts:out
expect 2 'power of two' $ok luks:one.luks xts:out,key=k1,unit=500
expect 2 'takes key=' $ok luks:one.luks xts:out,key=k1,color=red
expect 2 'copy the file' $ok plain:raw plain:out
expect 2 'LUKS1' $ok --luks-version 1 --unit 4096 luks:one.luks luks:out
expect 2 'no terminal' setsid -w reseal transcode --source-passphrase-file old luks:one.luks luks:out </dev/null
expect 2 'not open' reseal transcode --source-passphrase-fd 77 --destination-passphrase-file new luks:one.luks luks:out
expect 2 'whole units' $ok --unit 4096 xts:raw,key=k1,size=1536 luks:out

# Keys.
head -c 63 /dev/urandom >short
expect 4 'is not an XTS key' $ok xts:raw,key=short luks:out
(head -c 32 /dev/zero; head -c 32 /dev/zero) >halves
expect 4 'is not an XTS key' $ok xts:raw,key=halves luks:out

# A cipher that is not ours, by name.
truncate -s 20M cbc.luks
cryptsetup luksFormat -q --type luks2 --cipher aes-cbc-essiv:sha256 --key-size 256 --pbkdf pbkdf2 \
    --pbkdf-force-iterations 1000 --key-file old cbc.luks
expect 5 'aes-cbc-essiv:sha256' $ok luks:cbc.luks luks:out

# Damaged headers: one copy of LUKS2 is enough, two are not.
cp two.luks first.luks
dd if=/dev/zero of=first.luks bs=512 count=4 conv=notrunc status=none
$ok luks:first.luks luks:rescued.luks
rm rescued.luks
cp two.luks both.luks
dd if=/dev/zero of=both.luks bs=512 seek=8 count=4 conv=notrunc status=none
dd if=/dev/zero of=both.luks bs=512 seek=40 count=4 conv=notrunc status=none
expect 5 'damaged' $ok luks:both.luks luks:out
cp one.luks hurt.luks
printf 'XXXX' | dd of=hurt.luks bs=1 seek=6 conv=notrunc status=none
expect 5 'damaged' $ok luks:hurt.luks luks:out

# Truncated.
head -c 1000 one.luks >cut.luks
expect 5 'damaged or cut short' $ok luks:cut.luks luks:out
head -c 100000 two.luks >cut.luks
expect 5 'cut.luks' $ok luks:cut.luks luks:out
head -c $(($(stat -c %s one.luks) - 100)) one.luks >cut.luks
expect 5 'truncated' $ok luks:cut.luks luks:out
expect 5 'truncated' $ok xts:raw,key=k1,size=5M luks:out
expect 5 'truncated' $ok plain:raw,offset=5M luks:out

# Permissions, and a program that has the image open.
if [ "$(id -u)" != 0 ]; then
    cp one.luks barred.luks
    chmod 000 barred.luks
    expect 3 'Permission denied' $ok luks:barred.luks luks:out
fi
qemu-io --object secret,id=s0,file=old --image-opts driver=luks,key-secret=s0,file.filename=one.luks \
    -c 'write 0 512' -c 'sleep 100000' >/dev/null 2>&1 &
vm=$!
# Others run beside this and lock files of their own.
inode=$(stat -c %i one.luks)
until grep -q "OFDLCK.*:$inode " /proc/locks; do
    kill -0 $vm || fail "qemu-io did not open the image"
done
got=0
reseal transcode --in-place $old_new luks:one.luks 2>expect.err || got=$?
kill $vm
wait $vm 2>/dev/null || true
[ $got = 3 ] && grep -q 'in use' expect.err || fail "a running program was not seen: $got $(cat expect.err)"

# A state or journal that others can write could smuggle in a header with a key they know.
reseal transcode -q $fast $old_new luks:one.luks luks:mine
printf 'anything' >out.reseal-state
expect 5 'no journal that can be read' $ok luks:one.luks luks:out
chmod 666 out.reseal-state
expect 3 'not yours alone' $ok luks:one.luks luks:out
grep -q anything out.reseal-state || fail "a file that is not ours was removed"
rm out.reseal-state
expect 5 'no journal' reseal transcode --in-place --journal raw $old_new luks:one.luks
[ -s raw ] || fail "a file that is no journal was removed"

# The service: none, and gone.
expect 7 'not running' reseal transcode --runtime-dir "$work/nowhere" $old_new luks:one.luks luks:out
[ ! -e out ] || fail "a failed run left a destination"
[ ! -e out.reseal-state ] || fail "a failed run left a state"

# The JSON result carries the same.
reseal transcode --json $new_old luks:one.luks luks:out >json 2>/dev/null && fail "it should have failed"
grep -q '"exit":4' json && grep -q 'wrong pass phrase' json || fail "$(cat json)"
