#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `reseal bench openssl` measures and verifies every cipher, flow and TLS suite; a module that cannot be loaded is one clear line.
set -u
reseal=$RESEAL_BUILD/bin/reseal
module=$RESEAL_BUILD/lib/ossl-modules/reseal.so
[ -f "$module" ] || { echo "reseal.so was not built"; exit 77; }
bad=0
fail() { printf 'FAIL: %s\n' "$*"; bad=1; }
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT

# rows FIELD VALUE: how many rows have it.
rows() { grep -c "^    \"$1\": $2,\?\$" "$work/json"; }

"$reseal" bench openssl --quick --runs 1 --json >"$work/json" || fail "exit code $?"
all=$(rows workload '".*"')
# 3 GCM and 2 XTS in both directions, 3 CTR: 13; by 8 sizes, and by 2 sizes in two other flows; 4 suites.
[ "$all" -eq $((13 * 8 + 13 * 2 * 2 + 4)) ] || fail "$all rows"
for w in openssl:104 openssl-rekey:26 openssl-new-context:26 openssl-tls:4; do
    [ "$(rows workload "\"${w%:*}\"")" -eq "${w#*:}" ] || fail "rows of ${w%:*}"
done
[ "$(rows verified true)" -eq "$all" ] || fail "not every row is verified"
[ "$(rows engine '"[a-z0-9-]*"')" -eq "$all" ] || fail "not every row has an engine"
[ "$(rows cipher '"[A-Z0-9_-]*"')" -eq "$all" ] || fail "not every row has a cipher"
for f in ratio ratio_low ratio_high bytes runs; do
    [ "$(rows $f '[0-9.e-]*')" -eq "$all" ] || fail "not every row has $f"
done
version=$(openssl version 2>/dev/null | sed 's/.*(Library: //; s/^OpenSSL //; s/ .*//')
[ -z "$version" ] || [ "$(rows openssl_version "\"$version\"")" -eq "$all" ] || fail "not every row says OpenSSL $version"
[ "$(rows gbps '[0-9.e-]*')" -eq $((all - 4)) ] || fail "messages without GB/s"
[ "$(rows default_gbps '[0-9.e-]*')" -eq $((all - 4)) ] || fail "messages without the default provider's GB/s"
[ "$(rows cpu_s_per_gb '[0-9.e-]*')" -eq 4 ] || fail "suites without CPU time"
[ "$(rows default_cpu_s_per_gb '[0-9.e-]*')" -eq 4 ] || fail "suites without the default provider's CPU time"

# What delegates says so.
RESEAL_OSSL_ENGINE=openssl "$reseal" bench openssl --quick --runs 1 --json --cipher aes-256-gcm --bytes 1K >"$work/json" ||
    fail "delegated: exit code $?"
[ "$(rows engine '"openssl"')" -eq 6 ] || fail "delegation is not told"

"$reseal" bench openssl --quick --runs 1 --cipher TLS_AES_256_GCM_SHA384 >"$work/text" || fail "one suite: exit code $?"
grep -q '^promised, .* OpenSSL [0-9]' "$work/text" || fail "no promise is printed"
"$reseal" bench openssl --quick --runs 1 --no-tls --cipher AES-128-CTR --bytes 100 --core 0 >/dev/null || fail "odd size: exit code $?"

# A provider whose ciphers copy: no speed, and exit code 1. Two ends of it understand each other.
cat >"$work/wrong.c" <<'END'
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <stdlib.h>
#include <string.h>
static void *newctx(void *p) { (void)p; return malloc(1); }
static void freectx(void *c) { free(c); }
static int init(void *c, const unsigned char *k, size_t kl, const unsigned char *i, size_t il, const OSSL_PARAM *p)
{ (void)c; (void)k; (void)kl; (void)i; (void)il; (void)p; return 1; }
static int update(void *c, unsigned char *out, size_t *n, size_t room, const unsigned char *in, size_t len)
{ (void)c; (void)room; if (out != NULL) memcpy(out, in, len); *n = len; return 1; }
static int cipher(void *c, unsigned char *out, size_t *n, size_t room, const unsigned char *in, size_t len)
{ if (out == NULL || in == NULL) { *n = 0; return 1; } return update(c, out, n, room, in, len); }
static int final(void *c, unsigned char *out, size_t *n, size_t room) { (void)c; (void)out; (void)room; *n = 0; return 1; }
static int get(OSSL_PARAM p[], size_t iv, int aead)
{
    OSSL_PARAM *q;
    if ((q = OSSL_PARAM_locate(p, OSSL_CIPHER_PARAM_AEAD)) != NULL) OSSL_PARAM_set_int(q, aead);
    if ((q = OSSL_PARAM_locate(p, OSSL_CIPHER_PARAM_CUSTOM_IV)) != NULL) OSSL_PARAM_set_int(q, aead);
    if ((q = OSSL_PARAM_locate(p, OSSL_CIPHER_PARAM_KEYLEN)) != NULL) OSSL_PARAM_set_size_t(q, 32);
    if ((q = OSSL_PARAM_locate(p, OSSL_CIPHER_PARAM_IVLEN)) != NULL) OSSL_PARAM_set_size_t(q, iv);
    if ((q = OSSL_PARAM_locate(p, OSSL_CIPHER_PARAM_BLOCK_SIZE)) != NULL) OSSL_PARAM_set_size_t(q, 1);
    return 1;
}
static int get_ctr(OSSL_PARAM p[]) { return get(p, 16, 0); }
static int get_gcm(OSSL_PARAM p[]) { return get(p, 12, 1); }
static int get_ctx(void *c, OSSL_PARAM p[])
{
    OSSL_PARAM *q = OSSL_PARAM_locate(p, OSSL_CIPHER_PARAM_AEAD_TAG);
    (void)c;
    if (q != NULL) memset(q->data, 0, q->data_size);
    return get_gcm(p);
}
static int set_ctx(void *c, const OSSL_PARAM p[]) { (void)c; (void)p; return 1; }
#define F(id, f) {OSSL_FUNC_CIPHER_##id, (void (*)(void))f}
static const OSSL_DISPATCH ctr[] = {F(NEWCTX, newctx), F(FREECTX, freectx), F(ENCRYPT_INIT, init), F(DECRYPT_INIT, init),
                                    F(UPDATE, update), F(FINAL, final), F(GET_PARAMS, get_ctr), {0, NULL}};
static const OSSL_DISPATCH gcm[] = {F(NEWCTX, newctx), F(FREECTX, freectx), F(ENCRYPT_INIT, init), F(DECRYPT_INIT, init),
                                    F(UPDATE, update), F(CIPHER, cipher), F(FINAL, final), F(GET_PARAMS, get_gcm),
                                    F(GET_CTX_PARAMS, get_ctx), F(SET_CTX_PARAMS, set_ctx), {0, NULL}};
static const OSSL_ALGORITHM all[] = {{"AES-256-CTR", "provider=reseal", ctr, NULL},
                                     {"AES-256-GCM:id-aes256-GCM:2.16.840.1.101.3.4.1.46", "provider=reseal", gcm, NULL},
                                     {NULL, NULL, NULL, NULL}};
static const OSSL_ALGORITHM *query(void *p, int op, int *no_cache)
{ (void)p; *no_cache = 0; return op == OSSL_OP_CIPHER ? all : NULL; }
static const OSSL_DISPATCH own[] = {{OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))query}, {0, NULL}};
int OSSL_provider_init(const OSSL_CORE_HANDLE *h, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out, void **ctx)
{ (void)in; *out = own; *ctx = (void *)h; return 1; }
END
cc -shared -fPIC -o "$work/wrong.so" "$work/wrong.c" -lcrypto || fail "the wrong provider does not build"
for c in AES-256-CTR:12 AES-256-GCM:24 TLS_AES_256_GCM_SHA384:1 ECDHE-ECDSA-AES256-GCM-SHA384:1; do
    n=${c#*:} c=${c%:*}
    "$reseal" bench openssl --quick --runs 1 --module "$work/wrong.so" --cipher $c --json >"$work/json" 2>"$work/err"
    [ $? -eq 1 ] || fail "wrong output of $c is not exit code 1"
    [ "$(rows verified false)" -eq "$n" ] || fail "wrong output of $c passes"
    [ "$(rows gbps null)" -eq "$n" ] && [ "$(rows cpu_s_per_gb null)" -eq "$n" ] && [ "$(rows ratio null)" -eq "$n" ] ||
        fail "wrong output of $c has a speed"
    [ "$(wc -l <"$work/err")" -eq 1 ] || fail "wrong output of $c deserves one line"
done

# refused MODULE TEXT: exit code 1 and one line that names the file.
refused() {
    local out
    out=$("$reseal" bench openssl --quick --module "$1" 2>"$work/err")
    [ $? -eq 1 ] || fail "$2: not exit code 1"
    [ -z "$out" ] || fail "$2: prints rows"
    [ "$(wc -l <"$work/err")" -eq 1 ] || fail "$2: not one line"
    grep -qF "$1" "$work/err" || fail "$2: does not name the file"
}
mkdir "$work/m"
head -c 4096 "$module" >"$work/m/reseal.so"
refused "$work/m/reseal.so" "a truncated module"
: >"$work/m/empty.so"
refused "$work/m/empty.so" "an empty module"
refused "$work/m/nowhere.so" "a module that is not there"
refused "$RESEAL_BUILD/lib/libreseal.so" "a library that is no provider"

for wrong in '--bytes 0' '--bytes 17M' '--runs 0' '--cipher rot13' '--cipher AES-192-XTS' '--cipher AES-256-XTS --bytes 15' '--core x' 'extra' \
    '--cipher TLS_AES_256_GCM_SHA384'; do
    # shellcheck disable=SC2086
    "$reseal" bench openssl --quick --runs 1 --no-tls $wrong >/dev/null 2>&1
    [ $? -eq 2 ] || fail "'$wrong' is not refused as a wrong command line"
done
exit $bad
