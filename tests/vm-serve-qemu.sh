#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What NBD clients write through `reseal vm serve` is what QEMU's own LUKS driver reads from the image, and the other way
# round; LUKS1, and LUKS2 with units of 512 and 4096 bytes.
set -eu
. "$RESEAL_SOURCE/tests/support/vm-serve.sh"
need qemu-img qemu-io cryptsetup nbdinfo nbdcopy
service_start

qemu_luks() { printf 'driver=luks,key-secret=k,file.driver=file,file.filename=%s' "$1"; }

# The data of an image, as QEMU sees it; LUKS2, which it does not know, goes through reseal transcode first.
plain_of() {
    local image=$1
    if [ "$2" = luks2 ]; then
        rm -f "$work/as-luks1"
        reseal transcode --quiet --source-passphrase-file "$work/pass" --destination-passphrase-file "$work/pass" --luks-version 1 \
            --fill-holes --pbkdf pbkdf2 --pbkdf-ms 10 "luks:$image" "luks:$work/as-luks1"
        image=$work/as-luks1
    fi
    qemu-img convert -O raw --object secret,id=k,file="$work/pass" --image-opts "$(qemu_luks "$image")" "$3"
}

round() {
    local type=$1 unit=$2 disk=$work/disk.luks
    make_disk "$disk" 48M "$type" "$unit"
    serve_start --disk "$disk"
    nbdinfo "$uri" >"$work/info"
    grep -q 'export-size: 50331648 ' "$work/info" || fail "$type: wrong size: $(cat "$work/info")"
    grep -q 'can_multi_conn: true' "$work/info" || fail "$type: no multi-conn"

    # A whole disk over several connections, then odd pieces, zeros and a trim, and the same to a plain file.
    head -c 48M /dev/urandom >"$work/plain"
    nbdcopy --connections 4 --requests 16 "$work/plain" "$uri" || fail "$type: nbdcopy cannot write"
    local commands=(-c 'write -P 0x11 12345 777' -c 'write -P 0x22 1048575 2' -c 'write -z 262000 600000'
        -c 'write -P 0x33 -f 4096 4096' -c 'write -P 0x44 30000000 9000001' -c 'write -P 0x55 50331647 1' -c flush)
    qemu-io -f raw "${commands[@]}" "$uri" >"$work/io" || fail "$type: qemu-io: $(cat "$work/io")"
    qemu-io -f raw "${commands[@]}" "$work/plain" >"$work/io"
    if grep -q failed "$work/io"; then fail "$(cat "$work/io")"; fi
    qemu-io -f raw -c 'discard 40M 1M' "$uri" >"$work/io" || fail "$type: a trim failed"

    qemu-img compare -f raw -F raw "$work/plain" "$uri" >"$work/io" || fail "$type $unit: $(cat "$work/io")"
    nbdcopy "$uri" "$work/back" || fail "$type: nbdcopy cannot read"
    cmp "$work/plain" "$work/back" || fail "$type $unit: nbdcopy reads something else"
    serve_stop
    [ "$serve_code" = 0 ] || fail "$type: exit code $serve_code: $(cat "$work/serve.err")"
    [ ! -s "$work/serve.err" ] || fail "$type: it complained: $(cat "$work/serve.err")"
    [ ! -e "$socket" ] || fail "the socket stays behind"

    plain_of "$disk" "$type" "$work/seen"
    cmp "$work/plain" "$work/seen" || fail "$type $unit: the image holds something else"
}

round luks1 512
round luks2 512
round luks2 4096

# What QEMU's driver wrote, a client reads; a read-only disk stays as it is.
make_disk "$work/disk.luks" 16M luks1 512
qemu-io --object secret,id=k,file="$work/pass" --image-opts -c 'write -P 0x66 0 16M' "$(qemu_luks "$work/disk.luks")" >/dev/null
serve_start --read-only --disk "$work/disk.luks"
qemu-io -r -f raw -c 'read -P 0x66 0 16M' "$uri" >"$work/io" || fail "$(cat "$work/io")"
nbdinfo "$uri" | grep -q 'is_read_only: true' || fail "it is not said to be read-only"
serve_stop
echo ok
