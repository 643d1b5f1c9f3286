/* SPDX-License-Identifier: Apache-2.0 */
/* Key safes and bundles: what is locked with a KEK opens with it alone; a published key safe opens by phrase.
 */
#include "offload/base/keymem.h"
#include "offload/vm/locator.h"
#include "providers/key/vm-home.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"
#include "tests/support/published.h"

#include <stdio.h>
#include <stdlib.h>

#define PROVIDER "kmip/one"
#define KEY      "5a1f-0001,(x)"

static const uint8_t kek[RS_HOME_KEK_LEN] = {1, 2, 3}, other[RS_HOME_KEK_LEN] = {1, 2, 4};

static const char *member(const json_t *lock, const char *name)
{
    const char *text = json_string_value(json_object_get(lock, name));
    return text != NULL ? text : "";
}

static void test_a_bundle_opens_with_its_kek_alone(void **state)
{
    const uint8_t file_key[RS_FILE_KEY_LEN] = {9, 8, 7};
    uint8_t back[RS_FILE_KEY_LEN] = {0};
    char *text, why[160] = "";
    json_t *lock;
    (void)state;
    assert_int_equal(rs_bundle_seal(PROVIDER, KEY, kek, file_key, &text), 0);
    assert_memory_equal(text, "vmware:key/list/(pair/(fqid/<VMWARE-NULL>/kmip%2fone/5a1f%2d0001%2c%28x%29,",
                        75);
    assert_int_equal(rs_home_lock(text, RS_HOME_BY_PROVIDER, &lock, why, sizeof(why)), 0);
    assert_string_equal(member(lock, "provider"), PROVIDER);
    assert_string_equal(member(lock, "key"), KEY);
    assert_int_equal(rs_bundle_open(lock, kek, back, why, sizeof(why)), 0);
    assert_memory_equal(back, file_key, sizeof(file_key));
    assert_int_equal(rs_bundle_open(lock, other, back, why, sizeof(why)), RESEAL_EAUTH);
    assert_non_null(strstr(why, "does not open with its key"));
    json_decref(lock);
    free(text);
}

static void test_a_key_safe_opens_with_its_kek_alone(void **state)
{
    struct rs_locked_key config, back, locker;
    enum rs_locked_mac mac;
    char *text, why[160] = "";
    json_t *lock;
    (void)state;
    assert_int_equal(rs_config_key_make(&config), 0);
    assert_int_equal(config.len, 64);
    assert_int_equal(rs_keysafe_seal(PROVIDER, KEY, kek, &config, &text), 0);
    assert_int_equal(rs_home_lock(text, RS_HOME_BY_PHRASE, &lock, why, sizeof(why)), RESEAL_ENOKEY);
    assert_int_equal(rs_home_lock(text, RS_HOME_BY_PROVIDER, &lock, why, sizeof(why)), 0);
    rs_home_locker_of_kek(kek, &locker);
    assert_int_equal(rs_keysafe_open(lock, &locker, &back, &mac, why, sizeof(why)), 0);
    assert_int_equal(mac, RS_LOCKED_HMAC_SHA256);
    assert_memory_equal(&back, &config, sizeof(back));
    rs_home_locker_of_kek(other, &locker);
    assert_int_equal(rs_keysafe_open(lock, &locker, &back, &mac, why, sizeof(why)), RESEAL_EAUTH);
    json_decref(lock);
    free(text);
}

static void test_one_is_not_taken_for_the_other(void **state)
{
    const uint8_t file_key[RS_FILE_KEY_LEN] = {9};
    uint8_t back[RS_FILE_KEY_LEN];
    struct rs_locked_key config, locker;
    enum rs_locked_mac mac;
    char *bundle, *safe, why[160] = "";
    json_t *lock;
    (void)state;
    rs_home_locker_of_kek(kek, &locker);
    assert_int_equal(rs_config_key_make(&config), 0);
    assert_int_equal(rs_bundle_seal(PROVIDER, KEY, kek, file_key, &bundle), 0);
    assert_int_equal(rs_keysafe_seal(PROVIDER, KEY, kek, &config, &safe), 0);
    assert_int_equal(rs_home_lock(bundle, RS_HOME_BY_PROVIDER, &lock, why, sizeof(why)), 0);
    assert_int_equal(rs_keysafe_open(lock, &locker, &config, &mac, why, sizeof(why)), RESEAL_EFORMAT);
    json_decref(lock);
    assert_int_equal(rs_home_lock(safe, RS_HOME_BY_PROVIDER, &lock, why, sizeof(why)), 0);
    assert_int_equal(rs_bundle_open(lock, kek, back, why, sizeof(why)), RESEAL_EFORMAT);
    assert_non_null(strstr(why, "another product"));
    json_decref(lock);
    free(bundle);
    free(safe);
}

static void test_a_published_key_safe_opens_by_its_phrase(void **state)
{
    struct rs_locked_key locker, config;
    enum rs_locked_mac mac;
    char why[160] = "";
    json_t *lock;
    (void)state;
    assert_int_equal(rs_home_lock(PUBLISHED_SAFE, RS_HOME_BY_PROVIDER, &lock, why, sizeof(why)),
                     RESEAL_ENOKEY);
    assert_non_null(strstr(why, "key provider"));
    assert_int_equal(rs_home_lock(PUBLISHED_SAFE, RS_HOME_BY_PHRASE, &lock, why, sizeof(why)), 0);
    assert_int_equal(rs_locked_key_of_phrase(member(lock, "dictionary"), PUBLISHED_PHRASE,
                                             strlen(PUBLISHED_PHRASE), &locker),
                     0);
    assert_int_equal(rs_keysafe_open(lock, &locker, &config, &mac, why, sizeof(why)), 0);
    assert_int_equal(mac, RS_LOCKED_HMAC_SHA1);
    assert_int_equal(config.len, 32);
    assert_string_equal(config.cipher, "AES-256");
    json_decref(lock);
}

static void test_what_is_none_says_so(void **state)
{
    static const struct {
        const char *text;
        int err;
    } bad[] = {
        {"", RESEAL_EFORMAT},
        {"vmware:key/null/<VMWARE-EMPTYSTRING>", RESEAL_ENOKEY},
        {"vmware:key/fqid/<VMWARE-NULL>/a/b", RESEAL_ENOKEY},
        {"vmware:key/list/(fqid/<VMWARE-NULL>/a/b)", RESEAL_ENOKEY},
        {"vmware:key/list/(pair/(fqid/<VMWARE-NULL>/a/b,HMAC%2dMD5,AAAA))", RESEAL_ECIPHER},
        {"vmware:key/list/(pair/(fqid/<VMWARE-NULL>/<VMWARE-NULL>/b,HMAC%2dSHA%2d256,AAAA))", RESEAL_ENOKEY},
        {"vmware:key/list/(pair/(fqid/<VMWARE-NULL>/%ff/b,HMAC%2dSHA%2d256,AAAA))", RESEAL_EFORMAT},
        {"vmware:key/list/(pair/(fqid/<VMWARE-NULL>/a/b,HMAC%2dSHA%2d256,AAAA)", RESEAL_EFORMAT},
    };
    uint8_t file_key[RS_FILE_KEY_LEN];
    json_t *lock;
    char why[160];
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(bad); i++) {
        why[0] = '\0';
        assert_int_equal(rs_home_lock(bad[i].text, RS_HOME_BY_PROVIDER, &lock, why, sizeof(why)), bad[i].err);
        assert_string_not_equal(why, "");
        assert_null(lock);
    }
    static const char *const locked[] = {"", "AAAA", "A", "=====", NULL};
    for (unsigned i = 0; locked[i] != NULL; i++) {
        lock = json_pack("{ss ss}", "mac", "HMAC-SHA-256", "data", locked[i]);
        assert_int_equal(rs_bundle_open(lock, kek, file_key, why, sizeof(why)), RESEAL_EFORMAT);
        json_decref(lock);
    }
    lock = json_object();
    assert_int_equal(rs_bundle_open(lock, kek, file_key, why, sizeof(why)), RESEAL_EFORMAT);
    json_decref(lock);
}

static int start(void **state)
{
    (void)state;
    return rs_keymem_init(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_bundle_opens_with_its_kek_alone),
        cmocka_unit_test(test_a_key_safe_opens_with_its_kek_alone),
        cmocka_unit_test(test_one_is_not_taken_for_the_other),
        cmocka_unit_test(test_a_published_key_safe_opens_by_its_phrase),
        cmocka_unit_test(test_what_is_none_says_so),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
