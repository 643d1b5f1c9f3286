# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# VMs for script tests, and a service with native key providers that are ready for use. Source service.sh first.
#
#   vm_service            starts it, with the providers "local" (the default) and "other"
#   vm_make NAME [MIB]    a plain VM in $work/NAME: scsi0:0 raw, scsi0:1 raw, NVRAM; copies of all in $work/NAME.orig
#   vm_expect CODE TEXT COMMAND...   its exit code, and one line on stderr that has TEXT

umask 077
cd "$work" || exit 1
export XDG_STATE_HOME="$work/state"
safe="$work/safe"
vm() {
    local command=$1
    shift
    reseal vm "$command" -q --safe-dir "$safe" "$@"
}

vm_provider() {
    reseal provider add "$1" --native >/dev/null
    printf 'backup password' >"$work/backup-password"
    reseal provider export "$1" --output "$work/$1.p12" --password-file "$work/backup-password" >/dev/null
}

vm_service() {
    service_start "$@"
    vm_provider local
    vm_provider other
}

vm_make() {
    local name=$1 mib=${2:-4}
    mkdir -p "$name"
    head -c "${mib}M" /dev/urandom >"$name/system.img"
    head -c 1M /dev/urandom >"$name/data.img"
    head -c 70000 /dev/urandom >"$name/$name.nvram"
    cat >"$name/$name.vmx" <<END
.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "19"
displayName = "$name"
guestOS = "other-64"
nvram = "$name.nvram"
scsi0.present = "TRUE"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "system.img"
scsi0:1.present = "TRUE"
scsi0:1.fileName = "data.img"
END
    rm -rf "$name.orig"
    cp -r "$name" "$name.orig"
}

# vm_is_original NAME: every file is what vm_make made.
vm_is_original() {
    local f
    for f in system.img data.img "$1.nvram" "$1.vmx"; do
        cmp "$1/$f" "$1.orig/$f" || fail "$1/$f is not what it was"
    done
}

# vm_no_leftovers NAME
vm_no_leftovers() {
    local left
    left=$(find "$1" -name '*.reseal-new*' -o -name '*.reseal-intent*' -o -name '*.reseal-state*' -o -name '*.new')
    [ -z "$left" ] || fail "left behind: $left"
}

# vm_field NAME FILTER: one value of show --json
vm_field() {
    vm show --json "$1" | python3 -c "import json,sys; v=json.load(sys.stdin); print(v$2)"
}

vm_expect() {
    local code=$1 text=$2 got=0
    shift 2
    "$@" >expect.out 2>expect.err || got=$?
    [ "$got" = "$code" ] || fail "exit code $got, not $code, of: $* ($(cat expect.err))"
    grep -qF -- "$text" expect.err || fail "no '$text' in: $(cat expect.err)"
    [ "$(grep -c '^reseal vm' expect.err)" -le 1 ] || fail "more than one line: $(cat expect.err)"
}
