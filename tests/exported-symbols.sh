#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# libreseal exports every function that reseal.h declares, under its version, and nothing else; reseal.h alone compiles
# as C and C++.
set -u
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }
header=$RESEAL_SOURCE/offload/include/reseal/reseal.h
library=$RESEAL_BUILD/lib/libreseal.so.0
[ -e "$library" ] || { echo "libreseal.so.0 was not built"; exit 1; }

declared=$(tr '\n' ' ' <"$header" | grep -o 'RESEAL_API [^(]*(' | grep -o 'reseal_[a-z_]*(' | tr -d '(' | sort -u)
exported=$(nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u)
[ -n "$declared" ] || fail "no declaration found in reseal.h"
# A sanitizer's and the fuzzer's own symbols are not the project's.
only=$(comm -13 <(printf '%s\n' "$declared") <(grep '^reseal_\|^rs_' <<<"$exported"))
grep -q 'RESEAL_SANITIZE:STRING=..*' "$RESEAL_BUILD/CMakeCache.txt" ||
    only=$(comm -13 <(printf '%s\n' "$declared") <(printf '%s\n' "$exported"))
missing=$(comm -23 <(printf '%s\n' "$declared") <(printf '%s\n' "$exported"))
[ -z "$only" ] || fail "exported without being declared: $only"
[ -z "$missing" ] || fail "declared without being exported: $missing"
nm -D --defined-only "$library" | grep -q 'reseal_open@@RESEAL_0$' || fail "symbols have no version"
[ "$(objdump -p "$library" | awk '$1 == "SONAME" { print $2 }')" = libreseal.so.0 ] || fail "soname"

for compiler in "cc -std=c11 -x c" "c++ -std=c++11 -x c++"; do
    # shellcheck disable=SC2086
    command -v ${compiler%% *} >/dev/null || continue
    # shellcheck disable=SC2086
    ${compiler} -Wall -Wextra -Wpedantic -Werror -fsyntax-only "$header" || fail "reseal.h with $compiler"
done
exit $bad
