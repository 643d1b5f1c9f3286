/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration of a standard provider: addresses and fingerprints are completed, all else is refused
 * with a line that names the member. */
#include "providers/key/standard/provider.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"

#include <stdlib.h>

static int check(const char *text, json_t **config, char why[512])
{
    *config = json_loads(text, 0, NULL);
    assert_non_null(*config);
    why[0] = '\0';
    return rs_standard_check(*config, NULL, why, 512);
}

static void takes(const char *text, const char *want)
{
    char why[512];
    json_t *config, *expected = json_loads(want, 0, NULL);
    if (check(text, &config, why) != 0) fail_msg("%s: %s", text, why);
    assert_true(json_equal(config, expected));
    json_decref(config);
    json_decref(expected);
}

static void refuses(const char *text, const char *says)
{
    char why[512];
    json_t *config;
    assert_int_equal(check(text, &config, why), RESEAL_EINVAL);
    if (strstr(why, says) == NULL) fail_msg("%s: '%s' does not say '%s'", text, why, says);
    json_decref(config);
}

#define PIN "00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff"

static void test_addresses(void **state)
{
    (void)state;
    takes("{\"servers\": [\"kms.example\", \"kms:1\", \"10.0.0.1:65535\"]}",
          "{\"servers\": [\"kms.example:5696\", \"kms:1\", \"10.0.0.1:65535\"]}");
    takes("{\"servers\": [\"::1\", \"[::1]:7\", \"[fe80::1]\"]}",
          "{\"servers\": [\"[::1]:5696\", \"[::1]:7\", \"[fe80::1]:5696\"]}");
    refuses("{\"servers\": []}", "servers");
    refuses("{}", "servers");
    refuses("{\"servers\": [5]}", "servers");
    refuses("{\"servers\": [\"\"]}", "no name or address");
    refuses("{\"servers\": [\":5696\"]}", "no name or address");
    refuses("{\"servers\": [\"a b\"]}", "no name or address");
    refuses("{\"servers\": [\"a/b\"]}", "no name or address");
    refuses("{\"servers\": [\"kms:\"]}", "a port");
    refuses("{\"servers\": [\"kms:0\"]}", "a port");
    refuses("{\"servers\": [\"kms:65536\"]}", "a port");
    refuses("{\"servers\": [\"kms:99999999999999999999\"]}", "a port");
    refuses("{\"servers\": [\"kms:1x\"]}", "a port");
    refuses("{\"servers\": [\"[::1\"]}", "no ']'");
    refuses("{\"servers\": [\"[::1]x\"]}", "a port");
    refuses("{\"servers\": [\"kms\", \"kms:5696\"]}", "twice");
    refuses("{\"servers\": [\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"]}", "1 to 8");
}

static void test_trust(void **state)
{
    (void)state;
    takes("{\"servers\": [\"k:1\"], \"fingerprints\": "
          "[\"SHA256:00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff\", \"" PIN "\"]}",
          "{\"servers\": [\"k:1\"], \"fingerprints\": [\"" PIN "\"]}");
    refuses("{\"servers\": [\"k\"], \"fingerprints\": [\"" PIN ":00\"]}", "64 hexadecimal digits");
    refuses("{\"servers\": [\"k\"], \"fingerprints\": [\"" PIN "\"], \"ca\": \"x\"}",
            "a CA or by fingerprints");
    refuses("{\"servers\": [\"k\"], \"fingerprints\": [\"0011\"]}", "64 hexadecimal digits");
    refuses("{\"servers\": [\"k\"], \"fingerprints\": []}", "fingerprints");
    refuses("{\"servers\": [\"k\"], \"fingerprints\": [7]}", "64 hexadecimal digits");
}

static void test_the_rest(void **state)
{
    (void)state;
    takes("{\"servers\": [\"k:1\"], \"version\": \"1.4\", \"cache_s\": 0, \"connect_s\": 60}",
          "{\"servers\": [\"k:1\"], \"version\": \"1.4\", \"cache_s\": 0, \"connect_s\": 60}");
    refuses("{\"servers\": [\"k\"], \"version\": \"2.0\"}", "version");
    refuses("{\"servers\": [\"k\"], \"version\": \"1.10\"}", "version");
    refuses("{\"servers\": [\"k\"], \"connect_s\": 0}", "connect_s");
    refuses("{\"servers\": [\"k\"], \"request_s\": 61}", "request_s");
    refuses("{\"servers\": [\"k\"], \"cache_s\": -1}", "cache_s");
    refuses("{\"servers\": [\"k\"], \"cache_s\": \"1\"}", "cache_s");
    refuses("{\"servers\": [\"k\"], \"user\": \"\"}", "user");
    refuses("{\"servers\": [\"k\"], \"key\": \"x\"}", "key"); /* a secret does not belong into it */
    refuses("{\"servers\": \"k\"}", "servers");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_addresses), cmocka_unit_test(test_trust),
                                       cmocka_unit_test(test_the_rest)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
