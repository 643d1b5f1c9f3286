# SPDX-License-Identifier: Apache-2.0
# What is installed is enough: a program builds against it by pkg-config alone, with C and as C++ sees the header,
# exports nothing but reseal_*, and runs against an installed library.
set -eu
work=$(mktemp -d "${TMPDIR:-/tmp}/reseal-test-XXXXXX")
trap 'rm -rf "$work"' EXIT
cmake --install "$RESEAL_BUILD" --prefix "$work/usr" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
pc=$(find "$work/usr" -name reseal.pc)
export PKG_CONFIG_PATH=${pc%/*}
# An installation elsewhere than configured: the file finds its prefix itself.
flags() { pkg-config "$@" reseal; }
libdir=$(flags --variable=libdir)
[ -e "$libdir/libreseal.so.0" ]
if nm -D "$libdir/libreseal.so.0" | grep -q '__[at]san'; then
    echo "a sanitizer's library needs its compiler's flags"
    exit 77
fi

printf '#include <reseal/reseal.h>\nint main(void) { return reseal_strerror(RESEAL_EAUTH)[0] == 0; }\n' >"$work/a.c"
# shellcheck disable=SC2046  # flags are words
cc -std=c11 -Wall -Wextra -Werror -pedantic -o "$work/a" "$work/a.c" $(flags --cflags --libs)
LD_LIBRARY_PATH=$libdir "$work/a"
# shellcheck disable=SC2046
if command -v c++ >/dev/null; then c++ -x c++ -std=c++17 -Wall -Wextra -Werror -fsyntax-only "$work/a.c" $(flags --cflags); fi

others=$(nm -D --defined-only "$libdir/libreseal.so.0" | awk '$3 !~ /^(reseal_|RESEAL_0)/ { print $3 }')
[ -z "$others" ] || { echo "exported besides: $others"; exit 1; }
# Every function of the header is there, and has a manual page under its own name.
for name in $(sed -n 's/^RESEAL_API .*[ *]\(reseal_[a-z_]*\)(.*/\1/p' "$RESEAL_SOURCE/offload/include/reseal/reseal.h"); do
    nm -D --defined-only "$libdir/libreseal.so.0" | grep -q " $name@@RESEAL_0$" || { echo "$name is not exported"; exit 1; }
    [ -n "$(find "$work/usr" -path "*/man3/$name.3")" ] || { echo "$name has no manual page"; exit 1; }
done
