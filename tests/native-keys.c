/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of the native provider: their ids open where the KDK is, nowhere else, and a changed one not at all.
 */
#include "offload/base/keymem.h"
#include "providers/key/native/native.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

static struct rs_native_kdk kdk;

static void test_an_id_opens_to_its_key(void **state)
{
    uint8_t one[RS_NATIVE_KEK_LEN], two[RS_NATIVE_KEK_LEN], opened[RS_NATIVE_KEK_LEN],
        uuid[RS_NATIVE_UUID_LEN];
    char id[RS_NATIVE_ID_ROOM], other[RS_NATIVE_ID_ROOM];
    (void)state;
    assert_int_equal(rs_native_make(&kdk, one, id), 0);
    assert_int_equal(rs_native_make(&kdk, two, other), 0);
    assert_int_equal(strlen(id), RS_NATIVE_ID_LEN);
    assert_memory_not_equal(one, two, sizeof(one));
    assert_string_not_equal(id, other);
    assert_int_equal(rs_native_open(&kdk, id, opened), 0);
    assert_memory_equal(opened, one, sizeof(one));
    assert_int_equal(rs_native_open(&kdk, other, opened), 0);
    assert_memory_equal(opened, two, sizeof(two));
    assert_int_equal(rs_native_owner(id, uuid), 0);
    assert_memory_equal(uuid, kdk.uuid, sizeof(uuid));
}

/* Every character changed to every other one: refused, and no key comes out. */
static void test_a_changed_id_does_not_open(void **state)
{
    static const uint8_t zero[RS_NATIVE_KEK_LEN];
    uint8_t kek[RS_NATIVE_KEK_LEN];
    char id[RS_NATIVE_ID_ROOM];
    (void)state;
    assert_int_equal(rs_native_make(&kdk, kek, id), 0);
    for (size_t i = 0; i < RS_NATIVE_ID_LEN; i++) {
        for (const char *c = "Aa0-_.~ \n\x7f"; *c != '\0'; c++) {
            char changed[RS_NATIVE_ID_ROOM];
            memcpy(changed, id, sizeof(id));
            if (changed[i] == *c) continue;
            changed[i] = *c;
            memset(kek, 0, sizeof(kek));
            int err = rs_native_open(&kdk, changed, kek);
            assert_true(err == RESEAL_EFORMAT || err == RESEAL_ENOKEY || err == RESEAL_EAUTH);
            assert_memory_equal(kek, zero, sizeof(kek));
        }
        char shorter[RS_NATIVE_ID_ROOM];
        memcpy(shorter, id, sizeof(id));
        shorter[i] = '\0';
        assert_int_equal(rs_native_open(&kdk, shorter, kek), RESEAL_EFORMAT);
    }
    char longer[RS_NATIVE_ID_ROOM + 1];
    (void)snprintf(longer, sizeof(longer), "%sA", id);
    assert_int_equal(rs_native_open(&kdk, longer, kek), RESEAL_EFORMAT);
    assert_int_equal(rs_native_open(&kdk, "", kek), RESEAL_EFORMAT);
}

static void test_another_provider_opens_nothing(void **state)
{
    struct rs_native_kdk other, same_name;
    uint8_t kek[RS_NATIVE_KEK_LEN];
    char id[RS_NATIVE_ID_ROOM];
    (void)state;
    assert_int_equal(rs_native_make(&kdk, kek, id), 0);
    assert_int_equal(rs_native_kdk_make(&other), 0);
    assert_int_equal(rs_native_open(&other, id, kek), RESEAL_ENOKEY);
    same_name = other;
    memcpy(same_name.uuid, kdk.uuid, sizeof(kdk.uuid));
    assert_int_equal(rs_native_open(&same_name, id, kek), RESEAL_EAUTH);
}

static void test_the_check_value_knows_the_kdk(void **state)
{
    struct rs_native_kdk other = kdk;
    uint8_t one[RS_NATIVE_CHECK_LEN], two[RS_NATIVE_CHECK_LEN];
    (void)state;
    assert_int_equal(rs_native_kdk_check(&kdk, one), 0);
    assert_int_equal(rs_native_kdk_check(&other, two), 0);
    assert_memory_equal(one, two, sizeof(one));
    other.key[31] ^= 1;
    assert_int_equal(rs_native_kdk_check(&other, two), 0);
    assert_memory_not_equal(one, two, sizeof(one));
    other = kdk;
    other.uuid[0] ^= 1;
    assert_int_equal(rs_native_kdk_check(&other, two), 0);
    assert_memory_not_equal(one, two, sizeof(one));
}

/* The same by hand: SP 800-108 with one HMAC, RFC 3394 with the cipher's own name, base64url from base64. */
static void test_the_derivation_is_as_documented(void **state)
{
    static const char label[] = "reseal native-key v1";
    uint8_t kek[RS_NATIVE_KEK_LEN], opened[64], raw[80], wrapping[32], text[128];
    char id[RS_NATIVE_ID_ROOM], padded[128];
    unsigned mac_len;
    int n, last;
    (void)state;
    assert_int_equal(rs_native_make(&kdk, kek, id), 0);
    assert_memory_equal(id, "rsn1.", 5);
    (void)snprintf(padded, sizeof(padded), "%s==", id + 5);
    for (char *c = padded; *c != '\0'; c++) *c = *c == '-' ? '+' : *c == '_' ? '/' : *c;
    assert_int_equal(EVP_DecodeBlock(raw, (const uint8_t *)padded, (int)strlen(padded)), 78);
    assert_memory_equal(raw, kdk.uuid, 16);
    size_t at = 0;
    rs_store_be32(text, 1);
    at += 4;
    memcpy(text + at, label, sizeof(label)); /* with the zero byte that separates */
    at += sizeof(label);
    memcpy(text + at, raw, 32);
    at += 32;
    rs_store_be32(text + at, 256);
    at += 4;
    assert_non_null(HMAC(EVP_sha256(), kdk.key, sizeof(kdk.key), text, at, wrapping, &mac_len));
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    EVP_CIPHER_CTX_set_flags(ctx, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
    assert_int_equal(EVP_DecryptInit_ex(ctx, EVP_aes_256_wrap(), NULL, wrapping, NULL), 1);
    assert_int_equal(EVP_DecryptUpdate(ctx, opened, &n, raw + 32, 40), 1);
    assert_int_equal(EVP_DecryptFinal_ex(ctx, opened + n, &last), 1);
    EVP_CIPHER_CTX_free(ctx);
    assert_int_equal(n, 32);
    assert_memory_equal(opened, kek, sizeof(kek));
}

static int start(void **state)
{
    (void)state;
    return rs_keymem_init(0) == 0 && rs_native_kdk_make(&kdk) == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_id_opens_to_its_key),
        cmocka_unit_test(test_a_changed_id_does_not_open),
        cmocka_unit_test(test_another_provider_opens_nothing),
        cmocka_unit_test(test_the_check_value_knows_the_kdk),
        cmocka_unit_test(test_the_derivation_is_as_documented),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
