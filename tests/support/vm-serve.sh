# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# A real `reseal vm serve`, beside the service of service.sh:
#
#   . "$RESEAL_SOURCE/tests/support/vm-serve.sh"   # service.sh too
#   make_disk disk.luks 64M luks2 4096             # its pass phrase is in $work/pass
#   serve_start --disk disk.luks                   # at $work/serve.sock; stopped at exit
#   serve_vm VM                                    # the same without a pass phrase; serve_disk IMAGE
#   serve_stop                                     # its exit code is in $serve_code
#
# $uri is the address of the default export.

. "$RESEAL_SOURCE/tests/support/service.sh"
serve_pid=
socket=$work/serve.sock
uri="nbd+unix:///?socket=$socket"
printf 'a pass phrase' >"$work/pass"
chmod 600 "$work/pass"

need() {
    local p
    for p; do
        command -v "$p" >/dev/null && continue
        echo "$p is not installed"
        exit 77
    done
}

# make_disk FILE BYTES TYPE UNIT: a LUKS image for that much data, which is noise.
make_disk() {
    rm -f "$1"
    truncate -s "$2" "$1"
    truncate -s +32M "$1"
    local sector=()
    [ "$3" = luks1 ] || sector=(--sector-size "$4")
    cryptsetup luksFormat -q --type "$3" "${sector[@]}" --offset 65536 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
        --key-size 512 --key-file "$work/pass" "$1" || fail "cryptsetup cannot make $1"
}

serve_start() { serve_run --passphrase-file "$work/pass" "$@"; }
serve_vm() { serve_run "$1"; }
serve_disk() { serve_run --disk "$1"; }

serve_run() {
    rm -f "$work/serve.ready"
    mkfifo "$work/serve.ready"
    reseal vm serve --socket "$socket" --ready-fd 8 "$@" 8>"$work/serve.ready" \
        >"$work/serve.out" 2>"$work/serve.err" </dev/null &
    serve_pid=$!
    read -r _ <"$work/serve.ready" || fail "reseal vm serve did not start: $(cat "$work/serve.err")"
}

serve_stop() {
    serve_code=0
    [ -n "$serve_pid" ] || return 0
    kill -TERM "$serve_pid" 2>/dev/null || true
    wait "$serve_pid" || serve_code=$?
    serve_pid=
}

serve_cleanup() {
    serve_status=$?
    serve_stop
    service_stop
    rm -rf "$work"
    exit "$serve_status"
}
trap serve_cleanup EXIT
