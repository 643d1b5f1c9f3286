/* SPDX-License-Identifier: Apache-2.0 */
/* What an HTTP proxy answers to CONNECT: bounded, and taken as HTTP or not at all. */
#include "providers/key/wire/proxy.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"

#include <stdlib.h>

static int status_of(const char *text, size_t *used)
{
    return rs_proxy_answer((const uint8_t *)text, strlen(text), used);
}

static void test_answers(void **state)
{
    static const struct {
        const char *text;
        int status;
    } rows[] = {
        {"HTTP/1.1 200 Connection established\r\n\r\n", 200},
        {"HTTP/1.0 200\r\n\r\n", 200},
        {"HTTP/1.0 200\n\n", 200},
        {"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: "
         "5\r\n\r\n",
         407},
        {"HTTP/1.1 999 \r\n\r\n", 999},
        {"HTTP/1.1 099 \r\n\r\n", RESEAL_EPROTO},
        {"HTTP/2.0 200 OK\r\n\r\n", RESEAL_EPROTO},
        {"HTTP/1.1  200 OK\r\n\r\n", RESEAL_EPROTO},
        {"HTTP/1.1 2000 OK\r\n\r\n", RESEAL_EPROTO},
        {"http/1.1 200 OK\r\n\r\n", RESEAL_EPROTO},
        {"SSH-2.0-OpenSSH\r\n", RESEAL_EPROTO},
        {"\r\n\r\n", RESEAL_EPROTO},
        {"\x15\x03\x01", RESEAL_EPROTO},
        {"", 0},
        {"HTTP/1", 0},
        {"HTTP/1.1 200 OK\r\nX: y\r\n", 0},
    };
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(rows); i++) {
        size_t used;
        int status = status_of(rows[i].text, &used);
        if (status != rows[i].status) fail_msg("row %zu: %d", i, status);
        if (status > 0) assert_int_equal(used, strlen(rows[i].text));
    }
}

static void test_it_may_come_byte_by_byte(void **state)
{
    static const char text[] = "HTTP/1.1 200 Yes\r\nVia: 1.1 p\r\n\r\n";
    size_t used;
    (void)state;
    for (size_t n = 0; n < sizeof(text) - 1; n++)
        assert_int_equal(rs_proxy_answer((const uint8_t *)text, n, &used), 0);
    assert_int_equal(rs_proxy_answer((const uint8_t *)text, sizeof(text) - 1, &used), 200);
}

static void test_what_comes_behind_is_not_the_header(void **state)
{
    size_t used;
    (void)state;
    assert_int_equal(status_of("HTTP/1.1 200 OK\r\n\r\nearly", &used), 200);
    assert_int_equal(used, 19);
    assert_int_equal(rs_proxy_answer((const uint8_t *)"HTTP/1.1 200 a\0b\r\n\r\n", 20, &used), RESEAL_EPROTO);
}

static void test_it_ends_somewhere(void **state)
{
    uint8_t *endless = malloc(RS_PROXY_ANSWER_MAX + 2);
    size_t used;
    (void)state;
    memset(endless, 'a', RS_PROXY_ANSWER_MAX + 2);
    memcpy(endless, "HTTP/1.1 200 ", 13);
    assert_int_equal(rs_proxy_answer(endless, RS_PROXY_ANSWER_MAX - 1, &used), 0);
    assert_int_equal(rs_proxy_answer(endless, RS_PROXY_ANSWER_MAX, &used), RESEAL_EPROTO);
    memcpy(endless + RS_PROXY_ANSWER_MAX - 2, "\n\n", 2);
    assert_int_equal(rs_proxy_answer(endless, RS_PROXY_ANSWER_MAX, &used), 200);
    memcpy(endless + RS_PROXY_ANSWER_MAX - 2, "aa\n\n", 4);
    assert_int_equal(rs_proxy_answer(endless, RS_PROXY_ANSWER_MAX + 2, &used), RESEAL_EPROTO);
    free(endless);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers), cmocka_unit_test(test_it_may_come_byte_by_byte),
        cmocka_unit_test(test_what_comes_behind_is_not_the_header), cmocka_unit_test(test_it_ends_somewhere)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
