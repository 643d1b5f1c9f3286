#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Nothing that the module does is an invalid access, depends on memory that was never set, or leaks: by valgrind, over
# the orders of loading and unloading and over openssl itself. Valgrind knows neither VAES nor AVX-512, so what runs
# below it are the AES-NI kernels; the wider ones run under ASAN.
set -eu
. "$RESEAL_SOURCE/tests/support/service.sh"
. "$RESEAL_SOURCE/tests/support/provider.sh"
command -v valgrind >/dev/null || fail "valgrind is missing: tests/run installs it"
program=$(realpath "$RESEAL_BUILD/tests/test-ossl-load-unload")

# checked CMD...: no error and no leak, in its children neither; nothing of ours is suppressed
checked() {
    rm -f valgrind.*
    valgrind --quiet --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,indirect \
        --errors-for-leak-kinds=definite,indirect --trace-children=yes \
        --log-file="$work/valgrind.%p" "$@" || fail "exit code $? of $*: $(cat valgrind.*)"
    ! grep -h 'definitely lost\|indirectly lost\|Invalid\|uninitialised' valgrind.* || fail "$*: $(cat valgrind.*)"
}

for engine in vaes-aesni openssl; do
    checked env RESEAL_OSSL_ENGINE=$engine "$program" >output 2>&1 || fail "$engine: $(cat output)"
    grep -q PASSED output || fail "$(cat output)"
done

# A program that loads it by openssl.cnf, races the implementations and lets OpenSSL clean up.
head -c 100001 /dev/urandom >plain
key="-K 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -iv 000102030405060708090a0b0c0d0e0f"
# shellcheck disable=SC2086  # words
checked env RESEAL_OSSL_ENGINE=auto OPENSSL_CONF="$work/reseal.cnf" openssl enc -aes-256-ctr $key -in plain -out sealed
# shellcheck disable=SC2086
with default default openssl enc -d -aes-256-ctr $key -in sealed | cmp - plain
checked env RESEAL_OSSL_ENGINE=auto OPENSSL_CONF="$work/reseal.cnf" openssl list -providers -verbose
