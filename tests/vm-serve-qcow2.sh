#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# LUKS over qcow2, served: a thin disk reads as what it was and stays thin, dirty bitmaps follow, other programs open the
# ciphertext, and several clients write one cluster.
set -eu
. "$RESEAL_SOURCE/tests/support/vm-serve.sh"
. "$RESEAL_SOURCE/tests/support/vm.sh"
need qemu-img qemu-io qemu-nbd cryptsetup nbdinfo
vm_service

image() { qemu-img "$@" >"$work/said" 2>&1 || fail "qemu-img $*: $(cat "$work/said")"; }
disk() { printf 'nbd+unix:///%s?socket=%s' "$1" "$socket"; }
io() {
    local to=$1 args=() c
    shift
    for c; do args+=(-c "$c"); done
    qemu-io "${io_options[@]}" "${args[@]}" "$to" >"$work/io" 2>&1 || fail "qemu-io $to $*: $(cat "$work/io")"
    ! grep -qE 'failed|verification' "$work/io" || fail "qemu-io $to $*: $(cat "$work/io")"
}
io_options=(-f raw)
kib() { du -k "$1" | cut -f1; }
stop_well() {
    serve_stop
    [ "$serve_code" = 0 ] || fail "exit code $serve_code: $(cat "$work/serve.err")"
    image check -f qcow2 "$1"
}
# dirty IMAGE BITMAP: its dirty ranges, as START+LENGTH.
dirty() {
    rm -f b.sock
    qemu-nbd --read-only --format=qcow2 --persistent --socket="$work/b.sock" --bitmap="$2" "$1" </dev/null >"$work/nbd.log" 2>&1 &
    local nbd=$! i
    # A socket that is there need not listen yet.
    for i in $(seq 600); do
        nbdinfo --map="qemu:dirty-bitmap:$2" --json "nbd+unix:///?socket=$work/b.sock" >map.json 2>"$work/said" && break
        sleep 0.1
    done
    [ -s map.json ] || fail "no bitmap $2 after $i looks: $(cat "$work/nbd.log" "$work/said")"
    python3 -c 'import json,sys; print(*["%d+%d" % (e["offset"], e["length"]) for e in json.load(sys.stdin) if e["type"]])' <map.json
    kill $nbd
    wait $nbd || true
}

# A thin disk of 200 MiB and a bit, and its raw twin.
vm_make web 1
rm web/system.img
image create -f qcow2 web/system.qcow2 209719296
io_options=(-f qcow2)
io web/system.qcow2 'write -P 0x5a 1M 70000' 'write -P 0x17 209715200 4096'
io_options=(-f raw)
sed -i s/system.img/system.qcow2/ web/web.vmx
image convert -f qcow2 -O raw web/system.qcow2 twin.img
vm encrypt web
image bitmap --add web/system.qcow2 b0

# The same writes to both: small ones, cuts across clusters and pieces, zeros, the last bytes.
serve_vm web
same() { image compare -f raw -F raw "$1" "$(disk scsi0:0)"; }
same twin.img
writes=('write -P 0x11 4096 4096' 'write -P 0x22 1000000 5000' 'write -P 0x33 1M 4096' 'write -P 0x44 10M 3M'
    'write -P 0x55 20971000 100' 'write -f -P 0x66 262000 512' 'write -z 1100000 3000' 'write -z 40M 1M'
    'write -P 0x77 209719000 296' 'write -P 0x88 209700000 512' flush)
io twin.img "${writes[@]}"
io "$(disk scsi0:0)" "${writes[@]}"
same twin.img

# Four clients at once in the same clusters, which were never written.
pids=()
for n in 1 2 3 4; do
    args=()
    for k in $(seq 0 63); do args+=(-c "aio_write -P 0x9$n $((60 * 1024 * 1024 + (k * 4 + n - 1) * 5 * 512)) 2560"); done
    qemu-io -f raw "${args[@]}" -c aio_flush "$(disk scsi0:0)" >"$work/io.$n" 2>&1 &
    pids+=($!)
    qemu-io -f raw "${args[@]}" -c aio_flush twin.img >/dev/null
done
for n in 0 1 2 3; do wait "${pids[$n]}" || fail "client: $(cat "$work/io.$((n + 1))")"; done
same twin.img
stop_well web/system.qcow2
[ "$(kib web/system.qcow2)" -lt 30000 ] || fail "it is not thin any more: $(kib web/system.qcow2) KiB"
image info -f qcow2 web/system.qcow2
grep -q 'in-use' "$work/said" && fail "the bitmap was not saved"
header=16777216
dirty=$(dirty web/system.qcow2 b0)
case " $dirty " in
*" $header+"*) ;;
*) fail "the first write is not in the bitmap: $dirty" ;;
esac
case " $dirty " in
*" 0+"*) fail "the header is dirty: $dirty" ;;
esac

# QEMU's program is confined, and what comes to the socket for headers has to be a header of this container.
serve_vm web
child=$(pgrep -P "$serve_pid" -x qemu-nbd)
grep -q '^NoNewPrivs:.*1' "/proc/$child/status" || fail "it may get new privileges"
others=$(find "/proc/$child/fd" -lname '/*' ! -lname '/dev/null' ! -lname '*/system.qcow2')
[ -z "$others" ] || fail "it inherited files: $(ls -l "/proc/$child/fd")"
python3 - web/system.qcow2.reseal-served "$work/said" <<'END' || fail "the socket for headers takes what it should not"
import os, socket, struct, sys
def say(data, fds=()):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    s.connect(sys.argv[1])
    if fds: socket.send_fds(s, [data], list(fds))
    else: s.send(data)
    s.shutdown(socket.SHUT_WR)
    got = s.recv(4)
    return struct.unpack("<i", got)[0] if len(got) == 4 else None
assert say(b"abc") is None
assert say(struct.pack("<Q", 0)) == 0
assert say(struct.pack("<Q", 4096)) == 22
garbage = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
assert say(struct.pack("<Q", 4096), [garbage]) != 0
os.ftruncate(garbage, 1 << 20)
for length in 4096, 1 << 20, 1 << 40, (1 << 64) - 1:
    assert say(struct.pack("<Q", length), [garbage]) not in (None, 0)
END
same twin.img
stop_well web/system.qcow2

# Another key while it is served: the server writes the header, and opens the new one when the service lost all keys.
serve_vm web
[ -S web/system.qcow2.reseal-served ] || fail "no socket for headers"
key=$(vm_field web "['disks'][0]['key']")
vm recrypt --shallow web
vm_no_leftovers web
[ "$(vm_field web "['disks'][0]['key']")" != "$key" ] || fail "shallow: the key is the same"
grep -q 'it has a new header' "$work/serve.err" || fail "the server did not write it: $(cat "$work/serve.err")"
io "$(disk scsi0:0)" 'write -P 0x21 90M 4096' flush
io twin.img 'write -P 0x21 90M 4096'
pkill -KILL -P "$service_pid" -x reseal-keyd
same twin.img
vm_expect 3 'powered on' vm decrypt web
stop_well web/system.qcow2
[ ! -e web/system.qcow2.reseal-served ] || fail "the socket stayed"
serve_vm web
same twin.img
stop_well web/system.qcow2

# Killed, the image is closed in order all the same.
image bitmap --add web/system.qcow2 b1
serve_vm web
io "$(disk scsi0:0)" 'write -P 0x99 100M 4096' flush
io twin.img 'write -P 0x99 100M 4096'
kill -KILL "$serve_pid"
wait "$serve_pid" || true
serve_pid=
serve_vm web
same twin.img
stop_well web/system.qcow2
[ "$(dirty web/system.qcow2 b1)" = "$((header + 104857600))+65536" ] || fail "bitmap: $(dirty web/system.qcow2 b1)"

# A trim gives room back, and reads as zeros.
serve_run --discard web
before=$(kib web/system.qcow2)
io "$(disk scsi0:0)" 'discard 10M 3M' flush 'read -P 0 10M 3M' 'write -P 0x12 11000000 10' 'read -P 0 11000010 1000'
io twin.img 'write -z 10M 3M' 'write -P 0x12 11000000 10'
same twin.img
stop_well web/system.qcow2
[ "$(kib web/system.qcow2)" -lt $((before - 2000)) ] || fail "nothing was given back: $before, $(kib web/system.qcow2) KiB"
serve_run --read-only --disk web/system.qcow2
image compare -f raw -F raw twin.img "$(disk system.qcow2)"
stop_well web/system.qcow2
serve_run --cache none web
same twin.img
stop_well web/system.qcow2
vm recrypt --deep web
serve_vm web
same twin.img
stop_well web/system.qcow2
vm decrypt web
image compare -f raw -F qcow2 twin.img web/system.qcow2

# LUKS1, whose key the .vmx names: also when it is changed while the disk is served.
vm create --disk 30M --format luks1-qcow2 one
serve_vm one
io "$(disk scsi0:0)" 'read -P 0 0 30M' 'write -P 9 5000 70000' flush
vm recrypt --shallow one
pkill -KILL -P "$service_pid" -x reseal-keyd
io "$(disk scsi0:0)" 'read -P 0 0 5000' 'read -P 9 5000 70000' 'read -P 0 75000 1M'
stop_well one/one.qcow2
vm decrypt one
io_options=(-f qcow2)
io one/one.qcow2 'read -P 0 0 5000' 'read -P 9 5000 70000' 'read -P 0 75000 1M'
io_options=(-f raw)

# Another program's container, and another program that reads what was written.
printf 'a pass phrase' >"$work/pass"
image create -f luks --object "secret,id=s,file=$work/pass" -o key-secret=s,iter-time=10 luks1.raw 20M
image convert -f raw -O qcow2 luks1.raw luks1.qcow2
serve_start --disk luks1.qcow2
io "$(disk luks1.qcow2)" 'write -P 0x3c 0 1M' 'write -P 0x3d 12345678 5000' flush
stop_well luks1.qcow2
io_options=(--object "secret,id=s,file=$work/pass" --image-opts)
io driver=luks,key-secret=s,file.driver=qcow2,file.file.driver=file,file.file.filename=luks1.qcow2 'read -P 0x3c 0 1M' \
    'read -P 0x3d 12345678 5000'
io_options=(-f raw)
make_disk luks2.raw 20M luks2 4096
image convert -f raw -O qcow2 luks2.raw luks2.qcow2
serve_start --disk luks2.qcow2
io "$(disk luks2.qcow2)" 'write -P 0x3e 5M 1M' flush
stop_well luks2.qcow2
image convert -f qcow2 -O raw luks2.qcow2 after.raw
cryptsetup open --test-passphrase --key-file "$work/pass" after.raw || fail "cryptsetup does not open it"
serve_start --disk after.raw
io "$(disk after.raw)" 'read -P 0x3e 5M 1M'
serve_stop

# QEMU that dies takes the server along, with one line.
serve_start --disk luks2.qcow2
kill -KILL "$(pgrep -P "$serve_pid" -x qemu-nbd)"
serve_code=0
wait "$serve_pid" || serve_code=$?
serve_pid=
[ "$serve_code" = 6 ] || fail "exit code $serve_code: $(cat "$work/serve.err")"
grep -q 'QEMU, which had its image open, ended' "$work/serve.err" || fail "it does not say why: $(cat "$work/serve.err")"
echo ok
