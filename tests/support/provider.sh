# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2154
# The distribution's programs with and without the OpenSSL provider, for script
# tests. Source service.sh first: it has $work, fail and the cleaning up.
#
#   with reseal|default LOG CMD...   runs CMD with reseal.so loaded and preferred, or without
#   used LOG reseal|default CIPHER seal|open
#       prints how many bytes the programs that ran with this log, and have
#       ended, gave to that provider's cipher
#   used_only LOG reseal|default CIPHER BYTES
#       fails unless at least so many were sealed or opened by that provider,
#       and none by another one
#   background NAME CMD...           starts CMD; its process in ${pids[NAME]}, ended at exit
#   until_true NAME CMD...           waits until CMD succeeds; fails when NAME ended first

for program in openssl cc; do
    command -v $program >/dev/null || fail "$program is missing: tests/run installs it"
done
module=$RESEAL_BUILD/lib/ossl-modules/reseal.so
[ -e "$module" ] || fail "$module was not built"
module=$(realpath "$module")
declare -A pids=()

# A provider that does not load is an error, not something to go on without. (A section "default" is one that all
# others fall back to.)
cat >"$work/default.cnf" <<'CNF'
config_diagnostics = 1
openssl_conf = start
[start]
providers = providers
[providers]
default = default_provider
[default_provider]
activate = 1
[req]
distinguished_name = name
[name]
CNF
cat >"$work/reseal.cnf" <<CNF
config_diagnostics = 1
openssl_conf = start
[start]
providers = providers
alg_section = algorithms
[providers]
default = default_provider
reseal = reseal_provider
[default_provider]
activate = 1
[reseal_provider]
module = $module
activate = 1
[algorithms]
default_properties = ?provider=reseal,?reseal.fast=yes
CNF

cc -shared -fPIC -O1 -D_GNU_SOURCE -o "$work/which-provider.so" \
    "$RESEAL_SOURCE/tests/support/preload/which-provider.c" -lcrypto -ldl
# A module with a sanitizer in a program without: its library comes first. Programs of others leak; ours is asked
# for errors in the log that no_reports looks at.
sanitizer=
if nm -D "$module" | grep -q ' __asan_init'; then sanitizer=$(cc -print-file-name=libasan.so); fi

with() {
    local side=$1 log=$2 preload=$work/which-provider.so
    shift 2
    if [ "$side" = reseal ] && [ -n "$sanitizer" ]; then preload=$sanitizer:$preload; fi
    ${instead:-} env OPENSSL_CONF="$work/$side.cnf" WHICH_PROVIDER="$work/$log.used" LD_PRELOAD="$preload" \
        ASAN_OPTIONS="detect_leaks=0:abort_on_error=1:log_path=$work/asan" "$@"
}

# Our own kernels wherever this machine has any: what is tested must not hang on which was faster just then. A test of
# that sets RESEAL_OSSL_ENGINE=auto.
for RESEAL_OSSL_ENGINE in vaes-avx512 vaes-avx2 vaes-aesni auto; do
    export RESEAL_OSSL_ENGINE
    with reseal list openssl list -providers -verbose >"$work/list"
    if grep -q "AES-256-GCM=$RESEAL_OSSL_ENGINE" "$work/list"; then break; fi
done
grep -q "AES-256-GCM=" "$work/list" || fail "the provider is not there: $(cat "$work/list")"

used() {
    [ -e "$work/$1.used" ] || fail "nothing that logs to $1 has used a cipher"
    awk -v p="$2" -v c="$3" -v w="$4" '$1 == p && $2 == c && $3 == w { n += $4 } END { printf "%.0f\n", n }' "$work/$1.used"
}

used_only() {
    local all
    all=$(($(used "$1" "$2" "$3" seal) + $(used "$1" "$2" "$3" open)))
    [ "$all" -ge "$4" ] || fail "$1: $2 did $all bytes of $3, not $4: $(cat "$work/$1.used")"
    awk -v p="$2" -v c="$3" '$1 != p && $2 == c { exit 1 }' "$work/$1.used" ||
        fail "$1: $3 by others than $2: $(cat "$work/$1.used")"
}

background() {
    local name=$1
    shift
    # The program itself, not a shell that waits for it, gets the signals.
    if [ "$1" = with ]; then instead=exec "$@" <&0 & else "$@" <&0 & fi
    pids[$name]=$!
}

until_true() {
    local name=$1
    shift
    until "$@"; do
        kill -0 "${pids[$name]}" 2>/dev/null || fail "$name ended before: $*"
        sleep 0.02
    done
}

no_reports() {
    [ -z "$(compgen -G "$work/asan*")" ] || fail "$(cat "$work"/asan*)"
}

provider_cleanup() {
    local status=$? name
    set +e
    for name in "${!pids[@]}"; do kill -TERM "${pids[$name]}" 2>/dev/null; done
    for name in "${!pids[@]}"; do wait "${pids[$name]}" 2>/dev/null; done
    (exit $status)
    service_cleanup
}
trap provider_cleanup EXIT
cd "$work" || exit 1
