#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `reseal openssl check` says that the real openssl loads the module, of the build tree and of an installation, and what
# that gains; each layer that fails has its line, a way out, and its exit code; so has a configuration without effect.
set -u
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }
command -v openssl >/dev/null || { echo "openssl is missing: install openssl"; exit 77; }
grep -q 'RESEAL_SANITIZE:STRING=..*' "$RESEAL_BUILD/CMakeCache.txt" && { echo "openssl cannot load an instrumented module"; exit 77; }
work=$(mktemp -d "${TMPDIR:-/tmp}/reseal-test-XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
reseal=$RESEAL_BUILD/bin/reseal
module=$RESEAL_BUILD/lib/ossl-modules/reseal.so
unset OPENSSL_CONF OPENSSL_MODULES RESEAL_OSSL_ENGINE

# expect CODE 'REGEX OF A LINE' COMMAND...: exit code, the line, and after a line that fails the way out.
expect() {
    local code=$1 line=$2 out got
    shift 2
    out=$("$@" 2>&1)
    got=$?
    [ $got -eq "$code" ] || fail "exit code $got, not $code: $* ($out)"
    grep -Eq -- "$line" <<<"$out" || fail "no line '$line': $* ($out)"
    if grep -q '^fails' <<<"$out"; then
        grep -A1 '^fails' <<<"$out" | grep -Eq '^ +-> ' || fail "no way out: $* ($out)"
    fi
}
# shellcheck disable=SC2120,SC2119
check() { "$reseal" openssl check --runs 0 "$@"; }

# ---- it loads ------------------------------------------------------------------
expect 0 "^ok +module +.*/lib/ossl-modules/reseal.so [0-9.]+ loads" check
expect 0 '^ok +openssl +.* 3\.[0-9.]+, /.*/libcrypto\.so' check
expect 0 '^(ok|limits) +key memory ' check
expect 0 '^ok +ciphers +[0-9]+ ciphers compute what ' check
"$reseal" openssl check --runs 1 --json >"$work/json" || fail "--json is exit code $?"
python3 - "$work/json" <<'P' || fail "the JSON is not as documented"
import json, sys
o = json.load(open(sys.argv[1]))
assert o["exit"] == 0 and o["activation"]["known"] and o["openssl"]["version"].startswith("3.")
assert o["module"]["key_memory"] in ("secret", "locked", "plain")
assert all(c["engine"] and c["compared"] == "same" for c in o["module"]["ciphers"]), o["module"]
assert [(g["cipher"], g["bytes"]) for g in o["gain"]] == \
    [("AES-256-GCM", 16384), ("AES-256-XTS", 4096), ("AES-256-GCM", 64)]
assert all(g["verified"] and g["ratio"] > 0 and g["openssl_version"] == o["openssl"]["version"] for g in o["gain"])
P
# What is delegated is said to be.
expect 0 '^AES-256-GCM +default +openssl: delegated, as RESEAL_OSSL_ENGINE says' env RESEAL_OSSL_ENGINE=openssl "$reseal" openssl check --runs 0
# A script that starts it is looked through.
printf '#!/bin/sh\nexec %s "$@"\n' "$(command -v openssl)" >"$work/wrapped"
chmod 755 "$work/wrapped"
expect 0 "^ok +openssl +$work/wrapped 3\.[0-9.]+, /.*/libcrypto\.so" check --openssl "$work/wrapped"

# The library that is asked is that program's own, wherever it lies: here copies, found by a script that starts the program.
mkdir "$work/opt"
for library in $(ldd "$(command -v openssl)" | sed -n 's/.* => \(.*lib\(ssl\|crypto\)\.so[^ ]*\) .*/\1/p'); do cp -L "$library" "$work/opt/"; done
printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$work/opt" "$(command -v openssl)" >"$work/other-openssl"
chmod 755 "$work/other-openssl"
expect 0 "^ok +openssl +$work/other-openssl 3\.[0-9.]+, $work/opt/libcrypto\.so" check --openssl "$work/other-openssl"
expect 0 '^ok +ciphers +[0-9]+ ciphers compute what ' check --openssl "$work/other-openssl"

# ---- an installation -----------------------------------------------------------------
prefix="$work/an install"
cmake --install "$RESEAL_BUILD" --prefix "$prefix" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
installed=$(find "$prefix" -name reseal.so)
expect 0 "^ok +module +$installed [0-9.]+ loads" "$prefix/bin/reseal" openssl check --runs 0
openssl list -providers -provider-path "${installed%/*}" -provider reseal -provider default >"$work/list" 2>&1 ||
    fail "openssl does not load the installed module: $(cat "$work/list")"
grep -q 'status: active' "$work/list" || fail "the installed module is not active"

# ---- what fails, layer by layer ----------------------------------------------------------
expect 7 '^fails +openssl +there is no program ' check --openssl "$work/none"
expect 7 '^fails +openssl +.* does not run' check --openssl /bin/false
expect 7 "^fails +openssl +.* is not OpenSSL: it calls itself 'version -a'" check --openssl /bin/echo
printf '#!/bin/sh\necho "OpenSSL 1.1.1w  11 Sep 2023"\n' >"$work/old"
printf '#!/bin/sh\necho "LibreSSL 3.8.2"\n' >"$work/libre"
chmod 755 "$work/old" "$work/libre"
expect 7 '^fails +openssl +.*/old is OpenSSL 1\.1\.1w: providers came with 3\.0' check --openssl "$work/old"
expect 7 "^fails +openssl +.* is not OpenSSL: it calls itself 'LibreSSL" check --openssl "$work/libre"

expect 6 '^fails +module +there is no ' check --module "$work/none.so"
expect 6 '^fails +module +there is no ' check --module "$work/old/none.so"
expect 6 '^fails +module +.* cannot be read' check --module "$work"
echo 'this is text, and not a shared library at all, however long it is read' >"$work/text.so"
expect 5 '^fails +module +.*/text.so is not a shared library' check --module "$work/text.so"
: >"$work/empty.so"
expect 5 '^fails +module +.*/empty.so is not a shared library' check --module "$work/empty.so"
cp "$module" "$work/other.so"
printf '\267\0' | dd of="$work/other.so" bs=1 seek=18 conv=notrunc status=none # e_machine: arm64
expect 5 '^fails +module +.*/other.so is for arm64, this OpenSSL is for ' check --module "$work/other.so"
cp "$module" "$work/reseal.module"
expect 5 '^fails +module +.* must end in .so' check --module "$work/reseal.module"
head -c 4096 "$module" >"$work/short.so"
expect 5 '^fails +load +(the loader refuses it: |.* ends .*damaged)' check --module "$work/short.so"
echo 'void nowhere(void); void *f(void); void *f(void) { return (void *)nowhere; }' >"$work/f.c"
cc -shared -fPIC -Wl,-z,now -o "$work/undefined.so" "$work/f.c"
expect 5 '^fails +load +the loader refuses it: .*undefined symbol: nowhere' check --module "$work/undefined.so"
echo 'int nothing;' >"$work/n.c"
cc -shared -fPIC -o "$work/library.so" "$work/n.c"
expect 5 '^fails +load +.* is a library, but no provider' check --module "$work/library.so"
install -m 640 "$module" "$work/own.so"
expect 0 '^limits +module +.*/own.so may not be read by all' check --module "$work/own.so"
if [ "$(id -u)" -eq 0 ]; then
    install -m 755 "$reseal" "$work/reseal"
    install -m 600 "$module" "$work/secret.so"
    expect 3 '^fails +module +.* may not be read by this user' setpriv --reuid=65534 --regid=65534 --clear-groups \
        "$work/reseal" openssl check --runs 0 --module "$work/secret.so"
fi
expect 2 "'reseal openssl --help'" "$reseal" openssl
expect 2 "'reseal openssl --help'" "$reseal" openssl check --runs 51
expect 2 "'reseal openssl --help'" "$reseal" openssl config --json

# ---- a configuration without effect ----------------------------------------------------------
fragment=$RESEAL_BUILD/lib/ossl-modules/openssl-reseal.cnf
# shellcheck disable=SC2119
configured() { OPENSSL_CONF=$work/cnf check; }
cp "$fragment" "$work/cnf"
expect 0 '^ok +activation +.*/cnf activates it' configured
sed '/^default = /d' "$fragment" >"$work/cnf"
expect 1 '^fails +activation +.* without the default provider' configured
sed '/^default_properties/d' "$fragment" | sed 's/^default = .*//; s/^reseal = /default = default_sect\nreseal = /' >"$work/cnf"
expect 1 '^fails +activation +.*still come from elsewhere' configured
sed 's|^module = .*|module = /nonexistent/reseal.so|' "$fragment" >"$work/cnf"
expect 1 '^fails +activation +.* names the module /nonexistent/reseal.so: No such file' configured
sed "s|^module = .*|module = $work/text.so|" "$fragment" >"$work/cnf"
expect 1 '^fails +activation +.* does not load: .*/text.so: .*' configured
sed 's/^#engine = .*/engine = warp/' "$fragment" >"$work/cnf"
expect 1 '^fails +activation +.* does not load: .*engine "warp" is unknown' configured
sed '/^module = /d' "$fragment" >"$work/cnf"
expect 1 "^fails +activation +.* names no 'module'" configured
expect 0 '^ok +activation ' env OPENSSL_MODULES="${module%/*}" OPENSSL_CONF="$work/cnf" "$reseal" openssl check --runs 0
sed '/^\[reseal_sect\]/,/^\[evp/{/^activate/d}' "$fragment" >"$work/cnf"
expect 1 "^fails +activation +.* does not activate it" configured
printf '[section\n' >>"$work/cnf"
expect 1 '^fails +activation +.*/cnf cannot be read: line ' configured
: >"$work/cnf"
expect 0 '^limits +activation +.*/cnf does not name it' configured
exit $bad
