#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The program in the document of the OpenSSL provider builds with nothing but OpenSSL and gets Reseal's cipher; without
# the module it goes on with OpenSSL's own.
set -u
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }
grep -q 'RESEAL_SANITIZE:STRING=..*' "$RESEAL_BUILD/CMakeCache.txt" && { echo "a plain program cannot load an instrumented module"; exit 77; }
work=$(mktemp -d "${TMPDIR:-/tmp}/reseal-test-XXXXXX")
trap 'rm -rf "$work"' EXIT

# shellcheck disable=SC2016
sed -n '/^```c$/,/^```$/{/^```/d;p}' "$RESEAL_SOURCE/docs/openssl-provider.md" >"$work/example.c"
# shellcheck disable=SC2046  # flags are words
cc -std=c11 -Wall -Wextra -Werror -o "$work/example" "$work/example.c" $(pkg-config --cflags --libs libcrypto) || exit 1
out=$("$work/example" "$RESEAL_BUILD/lib/ossl-modules") || fail "it does not run"
[ "$out" = 'AES-256-GCM by reseal' ] || fail "it says '$out'"
out=$("$work/example" "$work") || fail "it does not run without the module"
[ "$out" = 'AES-256-GCM by default' ] || fail "without the module it says '$out'"
exit $bad
