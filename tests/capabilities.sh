#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What root starts keeps of root's rights what the table in docs/security.md says, and no more.
set -u
. "$RESEAL_SOURCE/tests/support/vm-serve.sh"
. "$RESEAL_SOURCE/tests/support/capabilities.sh"
need cryptsetup qemu-img qemu-nbd
cd "$work" || exit 1
ipc_lock=4000 files=6 start=18045ef

port=$(/usr/bin/python3 "$RESEAL_SOURCE/tests/support/free-port.py")
service_start --agent "127.0.0.1:$port" --state-dir "$work/state"
keyd=$(child_of "$service_pid" reseal-keyd) || fail "no reseal-keyd"
nursery=$(child_of "$keyd" reseal-keyd) || fail "no nursery"
work_pid=$(child_of "$service_pid" reseald-work) || fail "no reseald-work"
holds reseald "$service_pid" $start $start
holds reseald-work "$work_pid" $ipc_lock
holds reseal-keyd "$keyd" 0
comes_to_hold "the nursery" "$nursery" $ipc_lock
comes_to_hold reseal-flusher "$(child_of "$keyd" reseal-flusher)" 0
comes_to_hold reseal-agent "$(child_of "$keyd" reseal-agent)" 0

# A child that waits for a pass phrase that does not come.
make_disk disk.luks 4M luks2 4096
mkfifo slow
exec 7<>slow
reseal transcode -q --source-passphrase-fd 7 luks:disk.luks plain:out.img >/dev/null 2>&1 </dev/null &
slow_pid=$!
comes_to_hold "a child" "$(child_of "$nursery" reseal-keyd)" 0
kill $slow_pid
wait $slow_pid 2>/dev/null
exec 7>&-

serve_start --disk disk.luks
holds "vm serve" "$serve_pid" 0
serve_stop
[ "$serve_code" -eq 0 ] || fail "vm serve: $serve_code"
[ ! -e "$socket" ] || fail "the socket is left behind"

# The image of another user, in a folder of another user: what finds its key again stays.
mkdir -m 700 theirs
mv disk.luks theirs/
chmod 600 theirs/disk.luks
chown -R 65534:65534 theirs || { echo "files cannot be given away here"; exit 77; }
serve_start --disk theirs/disk.luks
holds "vm serve of another's image" "$serve_pid" $files
serve_stop
[ "$serve_code" -eq 0 ] || fail "vm serve of another's image: $serve_code"

# QEMU's program, which reads the metadata of a qcow2 image.
umask 077
printf 'of the backup' >word
{ reseal provider add house --native && reseal provider export house --output house.p12 --password-file word; } >/dev/null ||
    fail "no provider"
reseal vm create -q --disk 8M --format luks2-qcow2 --provider house --safe-dir "$work/safe" web >/dev/null || fail "no VM"
serve_run web
holds "vm serve of a qcow2 image" "$serve_pid" 0
holds qemu-nbd "$(child_of "$serve_pid" qemu-nbd)" $files $files
serve_stop
[ "$serve_code" -eq 0 ] || fail "vm serve of a qcow2 image: $serve_code"
