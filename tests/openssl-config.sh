#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The ready fragment for openssl.cnf activates the provider: by OPENSSL_CONF on its own, by .include behind the
# distribution's file, whose own settings stay, and for a module whose path has odd characters; programs that say nothing
# of providers then get Reseal's ciphers, and what they write is what OpenSSL's own code reads.
set -u
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }
command -v openssl >/dev/null || { echo "openssl is missing: install openssl"; exit 77; }
grep -q 'RESEAL_SANITIZE:STRING=..*' "$RESEAL_BUILD/CMakeCache.txt" && { echo "openssl cannot load an instrumented module"; exit 77; }
work=$(mktemp -d "${TMPDIR:-/tmp}/reseal-test-XXXXXX")
trap 'rm -rf "$work"' EXIT
reseal=$RESEAL_BUILD/bin/reseal
fragment=$RESEAL_BUILD/lib/ossl-modules/openssl-reseal.cnf
unset OPENSSL_CONF OPENSSL_MODULES RESEAL_OSSL_ENGINE

# effective CONFIGURATION: a program that says nothing of providers gets Reseal's ciphers with it, and the others still.
effective() {
    local out
    out=$(OPENSSL_CONF=$1 "$reseal" openssl probe)
    [ "$(grep -c '"AES-.*": "reseal"' <<<"$out")" -eq 8 ] || fail "$1: an unqualified fetch is not reseal's: $out"
    OPENSSL_CONF=$1 openssl list -providers >"$work/list" 2>&1
    grep -qx '  reseal' "$work/list" || fail "$1: openssl does not list reseal: $(cat "$work/list")"
    grep -qx '  default' "$work/list" || fail "$1: openssl does not list default: $(cat "$work/list")"
    printf abc | OPENSSL_CONF=$1 openssl dgst -sha256 | grep -q ba7816bf || fail "$1: no digest"
    round_trip "$1"
}

# Encrypted by a program with the configuration, decrypted by one without it, and the reverse.
round_trip() {
    local args=(-aes-256-ctr -K 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f -iv 0f0e0d0c0b0a09080706050403020100)
    head -c 100001 /dev/urandom >"$work/plain"
    OPENSSL_CONF=$1 openssl enc "${args[@]}" -in "$work/plain" -out "$work/sealed" || fail "$1: enc"
    OPENSSL_CONF=/dev/null openssl enc -d "${args[@]}" -in "$work/sealed" | cmp - "$work/plain" || fail "$1: enc differs"
    OPENSSL_CONF=/dev/null openssl enc "${args[@]}" -in "$work/plain" -out "$work/sealed"
    OPENSSL_CONF=$1 openssl enc -d "${args[@]}" -in "$work/sealed" | cmp - "$work/plain" || fail "$1: enc -d differs"
    # GCM, in a message of its own format.
    OPENSSL_CONF=$1 openssl cms -encrypt -secretkey 000102030405060708090a0b0c0d0e0f -secretkeyid 01 -aes-256-gcm \
        -binary -in "$work/plain" -outform DER -out "$work/cms" 2>"$work/log" || fail "$1: cms: $(cat "$work/log")"
    OPENSSL_CONF=/dev/null openssl cms -decrypt -secretkey 000102030405060708090a0b0c0d0e0f -secretkeyid 01 \
        -binary -inform DER -in "$work/cms" 2>"$work/log" | cmp - "$work/plain" || fail "$1: cms differs: $(cat "$work/log")"
}

# ---- the file of the build tree, on its own ------------------------------------------
effective "$fragment"
"$reseal" openssl config | cmp - "$fragment" || fail "'reseal openssl config' is not the file of the build tree"

# ---- an installation, in a folder with odd characters ----------------------------------
prefix="$work/in stall \$HOME #1"
cmake --install "$RESEAL_BUILD" --prefix "$prefix" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
installed=$(find "$prefix" -name openssl-reseal.cnf -path '*/share/reseal/*')
[ -n "$installed" ] || fail "the fragment is not installed"
"$prefix/bin/reseal" openssl config | cmp - "$installed" || fail "'reseal openssl config' is not the installed file"
effective "$installed"

# ---- behind the distribution's own file -------------------------------------------------
own=$(openssl version -d | sed 's/.*"\(.*\)"/\1/')/openssl.cnf
if [ -r "$own" ]; then
    cp "$installed" "$work/reseal.cnf"
    { cat "$own"; echo ".include $work/reseal.cnf"; } >"$work/system.cnf"
    effective "$work/system.cnf"
    # Programs still find the sections of the distribution's file.
    OPENSSL_CONF=$work/system.cnf openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj /CN=x \
        -keyout "$work/key" -out "$work/req" 2>"$work/log" || fail "req: $(cat "$work/log")"
    # Two lines that leave the distribution's file as it is, for one service.
    printf '.include %s\n' "$own" "$work/reseal.cnf" >"$work/service.cnf"
    effective "$work/service.cnf"
fi

# What a file sets of TLS and of other providers in sections of the usual names stays.
cat >"$work/tls.cnf" <<'C'
openssl_conf = openssl_init
[openssl_init]
providers = provider_sect
ssl_conf = ssl_sect
[provider_sect]
default = default_sect
legacy = legacy_sect
[default_sect]
activate = 1
[legacy_sect]
activate = 1
[ssl_sect]
system_default = tls_sect
[tls_sect]
CipherString = AES128-SHA256
C
printf '.include %s\n' "$fragment" >>"$work/tls.cnf"
effective "$work/tls.cnf"
grep -qx '  legacy' "$work/list" || fail "another provider is gone"
[ "$(OPENSSL_CONF=$work/tls.cnf openssl ciphers -s -tls1_2)" = AES128-SHA256 ] || fail "the TLS rules of the file are gone"

# ---- a module that is gone must not stop programs ------------------------------------------
sed 's|^module = .*|module = /nonexistent/reseal.so|' "$fragment" >"$work/gone.cnf"
printf 'config_diagnostics = 1\n' | cat - "$work/gone.cnf" >"$work/strict.cnf"
for conf in gone strict; do
    printf abc | OPENSSL_CONF=$work/$conf.cnf openssl dgst -sha256 2>&1 | grep -q ba7816bf || fail "$conf: no digest without the module"
    round_trip "$work/$conf.cnf"
done
exit $bad
