# SPDX-License-Identifier: Apache-2.0
# Encrypted images for script tests, made and compared by programs other than
# ours. Source service.sh first: it has $work.

command -v qemu-img >/dev/null || { echo "qemu-img is missing: install qemu-utils"; exit 77; }
command -v cryptsetup >/dev/null || { echo "cryptsetup is missing: install cryptsetup-bin"; exit 77; }

cd "$work"
umask 077
printf 'the old pass phrase' >old
printf 'the new pass phrase' >new
# Derivation of keys is not what is tested: make it quick.
fast="--pbkdf pbkdf2 --pbkdf-ms 1"
old_new="--source-passphrase-file old --destination-passphrase-file new"
new_old="--source-passphrase-file new --destination-passphrase-file old"

# content FILE MIB: data that is not all alike, with zeros in the middle
content() {
    head -c "$2M" /dev/urandom >"$1"
    dd if=/dev/zero of="$1" bs=1M seek=$(($2 / 2)) count=1 conv=notrunc status=none
}

# qemu_luks IMAGE PASSFILE RAW: a LUKS1 image with the content of RAW, by QEMU
qemu_luks() {
    qemu-img create -q -f luks --object secret,id=s0,file="$2" \
        -o key-secret=s0,cipher-alg=aes-256,cipher-mode=xts,ivgen-alg=plain64,hash-alg=sha256,iter-time=10 \
        "$1" "$(stat -c %s "$3")"
    qemu-img convert -n -f raw "$3" --object secret,id=s0,file="$2" \
        --target-image-opts driver=luks,key-secret=s0,file.filename="$1"
}

# same_as_raw LUKS1-IMAGE PASSFILE RAW: QEMU reads the same from both
same_as_raw() {
    qemu-img compare -q --object secret,id=s0,file="$2" --image-opts \
        driver=luks,key-secret=s0,file.filename="$1" driver=raw,file.filename="$3" ||
        fail "$1 does not hold what $3 does"
}

# luks2 IMAGE PASSFILE RAW SECTOR: a LUKS2 image whose header is cryptsetup's; raw key in IMAGE.key
luks2() {
    rm -f "$1" "$1.key"
    truncate -s $(($(stat -c %s "$3") + (16 << 20))) "$1"
    cryptsetup luksFormat -q --type luks2 --cipher aes-xts-plain64 --key-size 512 --sector-size "$4" \
        --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file "$2" "$1"
    volume_key "$1" "$2"
    reseal transcode -q --existing "plain:$3" "xts:$1,key=$1.key,offset=16M,unit=$4,step=$(($4 / 512))"
}

# volume_key IMAGE PASSFILE: cryptsetup's word on its key, in IMAGE.key
volume_key() {
    rm -f "$1.key"
    cryptsetup luksDump -q --dump-volume-key --volume-key-file "$1.key" --key-file "$2" "$1" >/dev/null
}

# same_by_key IMAGE PASSFILE RAW SECTOR OFFSET: the data under the volume key that cryptsetup finds in the header
same_by_key() {
    volume_key "$1" "$2"
    rm -f "$1.plain"
    reseal transcode -q "xts:$1,key=$1.key,offset=$5,unit=$4,step=$(($4 / 512))" "plain:$1.plain"
    cmp "$1.plain" "$3" || fail "$1 does not hold what $3 does"
}

# opens IMAGE PASSFILE: cryptsetup opens it
opens() {
    cryptsetup open --test-passphrase --key-file "$2" "$1" || fail "cryptsetup does not open $1 with the pass phrase in $2"
}

# expect CODE TEXT COMMAND...: its exit code, and a line on stderr that has TEXT
expect() {
    local code=$1 text=$2 got=0
    shift 2
    "$@" >expect.out 2>expect.err || got=$?
    [ "$got" = "$code" ] || fail "exit code $got, not $code, of: $* ($(cat expect.err))"
    grep -qF -- "$text" expect.err || fail "no '$text' in: $(cat expect.err)"
    [ "$(grep -c '^reseal transcode:' expect.err)" -le 1 ] || fail "more than one line: $(cat expect.err)"
}
