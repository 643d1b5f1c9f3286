/* SPDX-License-Identifier: Apache-2.0 */
/* Key locators: texts as they were published, both ways of writing them, and what is refused. */
#include "offload/vm/locator.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"

#include <stdio.h>
#include <stdlib.h>

static struct rs_locator *parse(const char *text)
{
    struct rs_locator *l = NULL;
    char why[200] = "";
    int err = rs_locator_parse(text, strlen(text), &l, why, sizeof(why));
    if (err != 0) fail_msg("%s: %s", text, why);
    return l;
}

static void assert_prints(const struct rs_locator *l, const char *text)
{
    char *printed = rs_locator_text(l);
    assert_non_null(printed);
    assert_string_equal(printed, text);
    free(printed);
}

/* A key safe of a VM that a pass phrase locks; the escapes of both levels. */
static const char phrase_safe[] =
    "vmware:key/list/(pair/(phrase/IZTyVpBWKj0%3d/"
    "pass2key%3dPBKDF2%2dHMAC%2dSHA%2d1%3acipher%3dAES%2d256%3arounds%3d1000%3asalt%3d"
    "AAECAwQFBgcICQoLDA0ODw%253d%253d,HMAC%2dSHA%2d1,AAECAwQFBgcICQoLDA0ODw%3d%3d))";

static void test_a_key_safe_with_a_pass_phrase(void **state)
{
    char value[64];
    struct rs_locator *l = parse(phrase_safe), *pair = l->child, *phrase = pair->child;
    (void)state;
    assert_int_equal(l->type, RS_LOCATOR_LIST);
    assert_int_equal(pair->type, RS_LOCATOR_PAIR);
    assert_int_equal(phrase->type, RS_LOCATOR_PHRASE);
    assert_string_equal(pair->fields[RS_PAIR_MAC], "HMAC-SHA-1");
    assert_string_equal(pair->fields[RS_PAIR_DATA], "AAECAwQFBgcICQoLDA0ODw==");
    assert_string_equal(phrase->fields[RS_PHRASE_ID], "IZTyVpBWKj0=");
    const char *dictionary = phrase->fields[RS_PHRASE_DICTIONARY];
    assert_int_equal(rs_dictionary_get(dictionary, "pass2key", value, sizeof(value)), 0);
    assert_string_equal(value, "PBKDF2-HMAC-SHA-1");
    assert_int_equal(rs_dictionary_get(dictionary, "salt", value, sizeof(value)), 0);
    assert_string_equal(value, "AAECAwQFBgcICQoLDA0ODw==");
    assert_int_equal(rs_dictionary_get(dictionary, "rounds", value, 4), RESEAL_EFORMAT);
    assert_int_equal(rs_dictionary_get(dictionary, "key", value, sizeof(value)), RESEAL_ENOKEY);
    assert_prints(l, phrase_safe);
    rs_locator_free(l);
}

static void test_a_bundle_of_a_provider(void **state)
{
    static const char escaped[] = "vmware:key/list/(pair/(fqid/<VMWARE-NULL>/KMS%2d1/"
                                  "a1b2%2fc3%2b%3d,HMAC%2dSHA%2d256,c2VjcmV0%2b%2f%3d))";
    static const char shown[] =
        "VMWARE:KEY/List/(pair/(FQID/<VMWARE-NULL>/KMS-1/a1b2/c3+=,HMAC-SHA-256,c2VjcmV0+/=))";
    (void)state;
    const char *texts[] = {escaped, shown};
    for (size_t i = 0; i < RS_ARRAY_LEN(texts); i++) {
        struct rs_locator *l = parse(texts[i]), *fqid = l->child->child;
        assert_int_equal(fqid->type, RS_LOCATOR_FQID);
        assert_null(fqid->fields[RS_FQID_ID]);
        assert_string_equal(fqid->fields[RS_FQID_PROVIDER], "KMS-1");
        assert_string_equal(fqid->fields[RS_FQID_KEY], "a1b2/c3+=");
        assert_string_equal(l->child->fields[RS_PAIR_DATA], "c2VjcmV0+/=");
        assert_prints(l, escaped);
        rs_locator_free(l);
    }
}

static void test_each_type_comes_back(void **state)
{
    static const char *const texts[] = {
        "vmware:key/null/<VMWARE-EMPTYSTRING>",
        "vmware:key/rawkey/abc%3d",
        "vmware:key/role/id/obfuscation",
        "vmware:key/ldap/id/server/domain/636/TRUE/path%2fto",
        "vmware:key/script/id/relative%2fpath/signature",
        "vmware:key/list/(null/<VMWARE-EMPTYSTRING>,fqid/<VMWARE-NULL>/p/k,rawkey/r)",
    };
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(texts); i++) {
        struct rs_locator *l = parse(texts[i]);
        assert_prints(l, texts[i]);
        rs_locator_free(l);
    }
}

static void test_one_is_made_field_by_field(void **state)
{
    const char *fqid_fields[] = {NULL, "native 1", "rsn1.AB-_"}, *pair_fields[] = {"HMAC-SHA-256", "AAAA"};
    struct rs_locator *list = rs_locator_new(RS_LOCATOR_LIST, NULL);
    struct rs_locator *pair = rs_locator_new(RS_LOCATOR_PAIR, pair_fields);
    (void)state;
    rs_locator_add(pair, rs_locator_new(RS_LOCATOR_FQID, fqid_fields));
    rs_locator_add(list, pair);
    assert_prints(list, "vmware:key/list/(pair/(fqid/<VMWARE-NULL>/native%201/rsn1%2eAB%2d%5f,"
                        "HMAC%2dSHA%2d256,AAAA))");
    rs_locator_free(list);
}

static void test_what_is_no_locator(void **state)
{
    static const char *const texts[] = {
        "",
        "vmware:key",
        "vmware:key/",
        "vmware:key/none/x",
        "vmware:key/list/",
        "vmware:key/list/(",
        "vmware:key/list/()",
        "vmware:key/list/(rawkey/a",
        "vmware:key/list/(rawkey/a,)",
        "vmware:key/list/(rawkey/a))",
        "vmware:key/pair/(rawkey/a,b)",
        "vmware:key/pair/(rawkey/a,b,c,d)",
        "vmware:key/fqid/a/b",
        "vmware:key/phrase/a",
        "vmware:key/rawkey/%",
        "vmware:key/rawkey/%4",
        "vmware:key/rawkey/%4g",
        "vmware:key/rawkey/%00",
        "vmware:key/rawkey/a,b",
        "vmware:key/list/(list/(list/(list/(list/(list/(list/(list/(list/(rawkey/a)))))))))",
    };
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(texts); i++) {
        struct rs_locator *l = NULL;
        char why[200] = "";
        assert_int_equal(rs_locator_parse(texts[i], strlen(texts[i]), &l, why, sizeof(why)), RESEAL_EFORMAT);
        assert_true(why[0] != '\0' && strchr(why, '\n') == NULL);
        assert_null(l);
    }
    /* Cut at every byte. */
    for (size_t len = 0; len < sizeof(phrase_safe) - 1; len++) {
        struct rs_locator *l = NULL;
        char why[200];
        assert_int_equal(rs_locator_parse(phrase_safe, len, &l, why, sizeof(why)), RESEAL_EFORMAT);
    }
}

static void test_a_list_may_not_be_endless(void **state)
{
    size_t room = 16u << 10, at = 0;
    char *text = malloc(room), why[200];
    struct rs_locator *l = NULL;
    (void)state;
    at += (size_t)snprintf(text, room, "vmware:key/list/(rawkey/a");
    for (unsigned i = 0; i < RS_LOCATOR_NODES_MAX; i++)
        at += (size_t)snprintf(text + at, room - at, ",rawkey/a");
    at += (size_t)snprintf(text + at, room - at, ")");
    assert_int_equal(rs_locator_parse(text, at, &l, why, sizeof(why)), RESEAL_EFORMAT);
    free(text);
}

static void test_dictionaries_are_written(void **state)
{
    char text[64] = "", value[64];
    (void)state;
    assert_int_equal(rs_dictionary_put(text, sizeof(text), "type", "key"), 0);
    assert_int_equal(rs_dictionary_put(text, sizeof(text), "key", "A+/-b=:%"), 0);
    assert_string_equal(text, "type=key:key=A+/-b%3d%3a%25");
    assert_int_equal(rs_dictionary_get(text, "key", value, sizeof(value)), 0);
    assert_string_equal(value, "A+/-b=:%");
    for (size_t room = 1; room < 27; room++) {
        char small[27] = "";
        int err = rs_dictionary_put(small, room, "type", "key");
        if (err == 0) err = rs_dictionary_put(small, room, "key", "A+/-b=:%");
        assert_int_equal(err, RESEAL_ESPACE);
        assert_true(memchr(small, '\0', room) != NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_key_safe_with_a_pass_phrase),
        cmocka_unit_test(test_a_bundle_of_a_provider),
        cmocka_unit_test(test_each_type_comes_back),
        cmocka_unit_test(test_one_is_made_field_by_field),
        cmocka_unit_test(test_what_is_no_locator),
        cmocka_unit_test(test_a_list_may_not_be_endless),
        cmocka_unit_test(test_dictionaries_are_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
