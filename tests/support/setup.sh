# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What offload/quickstart and tests/run share: the one list of packages, how the
# missing ones are installed, and where and how a preset is built.

# Needed to build and run.
reseal_build_packages=(
    gcc libc6-dev cmake ninja-build pkg-config
    libssl-dev libhwloc-dev libcryptsetup-dev liburing-dev libjansson-dev liblz4-dev libzstd-dev
    libnbd-dev libseccomp-dev libcmocka-dev libcurl4-openssl-dev libjose-dev libtss2-dev libtss2-tcti-swtpm0
    qemu-utils cryptsetup-bin
)
# Needed besides by the tests: the second compiler with its sanitizers and fuzzer, the model checker.
# shellcheck disable=SC2034  # used by tests/run
reseal_test_packages=(clang-14 libclang-rt-14-dev spin gdb procps iproute2 openssl curl groff-base nginx-light stunnel4 tinyproxy-bin valgrind python3-cryptography python3-cryptography-vectors python3-pykmip libmongocrypt-dev openjdk-17-jre-headless swtpm swtpm-tools tpm2-tools jose python3-jwt libnbd-bin fio qemu-system-x86)

case $(uname -m) in
x86_64)
    reseal_build_packages+=(libipsec-mb-dev)
    # Emulated guests: the machine, its kernel, what is in its first file system.
    reseal_test_packages+=(qemu-system-x86 linux-image-cloud-amd64 busybox-static cpio e2fsprogs)
    ;;
esac

reseal_source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# missing_packages NAME...: those that are not installed, one a line.
missing_packages() {
    local p
    for p; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || printf '%s\n' "$p"
    done
}

# need_packages NAME...: installs what is missing, saying what; ends the program with the command to type when it may not.
need_packages() {
    local missing as=()
    command -v dpkg-query >/dev/null || { say "not a Debian system: assuming that $* are there"; return 0; }
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
            as=(sudo)
        else
            die "packages are missing; as root: apt-get install --no-install-recommends ${missing[*]}"
        fi
    fi
    say "installing: ${missing[*]}"
    "${as[@]}" apt-get -qq update || say "apt-get update failed; trying with the lists that are there"
    "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}" \
        >/dev/null || die "apt-get could not install: ${missing[*]}"
}

# tree_is_mine FOLDER: it can be created or written, and nothing in it was built by another user.
tree_is_mine() {
    if [ -e "$1" ]; then
        [ -w "$1" ] && [ -z "$(find "$1" -maxdepth 2 ! -user "$(id -un)" -print -quit 2>/dev/null)" ]
    else
        [ -w "$(dirname "$1")" ]
    fi
}

# Where presets are built: build/ of the tree; where another user built before, or may alone write, a folder of one's own.
choose_build_root() {
    local candidate
    for candidate in "$reseal_source/build" "${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/reseal-build" \
        "/var/tmp/reseal-build-$(id -u)"; do
        if tree_is_mine "$candidate" && mkdir -p "$candidate" 2>/dev/null; then
            # Trees of different versions must not share one folder outside the tree.
            case $candidate in
            "$reseal_source"/*) reseal_build_root=$candidate ;;
            *) reseal_build_root=$candidate/$(printf '%s' "$reseal_source" | cksum | cut -d' ' -f1) ;;
            esac
            return 0
        fi
    done
    die "no folder to build in: make $reseal_source/build writable"
}

# in_build_log NAME COMMAND...: runs it with its output at the end of the preset's build log; on failure shows that end.
in_build_log() {
    local preset=$1 log=$reseal_build_root/$1/build.log
    shift
    (cd "$reseal_source" && "$@") >>"$log" 2>&1 && return 0
    tail -n 40 "$log" >&2
    printf '%s: preset %s does not build; whole log: %s\n' "${0##*/}" "$preset" "$log" >&2
    return 1
}

# configure_preset NAME: quietly; on failure shows the end of the log.
configure_preset() {
    local dir=$reseal_build_root/$1
    mkdir -p "$dir" || die "cannot create $dir"
    : >"$dir/build.log"
    in_build_log "$1" cmake --preset "$1" -B "$dir"
}

# build_targets NAME [TARGET...]: of a preset that is configured; all of them by default.
build_targets() {
    local preset=$1
    shift
    in_build_log "$preset" nice cmake --build "$reseal_build_root/$preset" -- "$@"
}

# build_preset NAME [TARGET...]: configures and builds.
build_preset() { configure_preset "$1" && build_targets "$@"; }
