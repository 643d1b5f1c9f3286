/* SPDX-License-Identifier: Apache-2.0 */
/* Envelopes that were cut, changed, swapped while they are read, or sealed under another key: nothing of them
 * comes out. */
#include "offload/base/keymem.h"
#include "providers/key/envelope.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"
#include "tests/support/envelopes.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static const uint8_t key[RS_ENVELOPE_KEY] = "thirty-two bytes of a known key",
                     other[RS_ENVELOPE_KEY] = "another";

/* What is wrong with it shows, and nothing came out. */
static void refused(int envelope, const char *what, uint64_t at)
{
    int text, r = open_file(envelope, key, "", &text);
    if (r == 0 || length_of(text) != 0) {
        print_error("%s at byte %llu: status %d, %llu bytes came out\n", what, (unsigned long long)at, r,
                    (unsigned long long)length_of(text));
        fail();
    }
    close(text);
}

static void test_every_truncation(void **state)
{
    int whole = sealed_file(5000, 1, key, "");
    uint64_t len = length_of(whole);
    (void)state;
    assert_int_equal(len, 20480);
    for (uint64_t n = 0; n<len; n += n> 520 && n < len - 16 ? 61 : 1) {
        int cut = memfd_create("cut", MFD_CLOEXEC);
        uint8_t bytes[20480];
        assert_int_equal(rs_pread_full(whole, bytes, (size_t)n, 0), 0);
        assert_int_equal(rs_pwrite_full(cut, bytes, (size_t)n, 0), 0);
        refused(cut, "cut", n);
        close(cut);
    }
    close(whole);
}

static void test_bytes_behind_the_end(void **state)
{
    static const uint8_t more[4096];
    (void)state;
    for (size_t n = 1; n <= sizeof(more); n = n < 4 ? n + 1 : n * 4) {
        int envelope = sealed_file(5000, 1, key, "");
        assert_int_equal(rs_pwrite_full(envelope, more, n, length_of(envelope)), 0);
        refused(envelope, "more bytes", n);
        close(envelope);
    }
}

/* Bits that carry nothing: the rest of the footer's rooms, which no tag covers. */
static bool carries_nothing(uint64_t at, uint64_t len)
{
    uint64_t footer = len - 4096;
    return at >= footer + 23 && at < footer + 4088 && !(at >= footer + 32 && at < footer + 48);
}

static void test_every_changed_byte(void **state)
{
    int envelope = sealed_file(5000, 1, key, ""), plain = pattern_file(5000, 1), text;
    uint64_t len = length_of(envelope);
    (void)state;
    for (uint64_t at = 0; at < len; at++) {
        uint8_t was, is;
        assert_int_equal(rs_pread_full(envelope, &was, 1, at), 0);
        is = (uint8_t)(was ^ (1u << at % 8));
        assert_int_equal(rs_pwrite_full(envelope, &is, 1, at), 0);
        if (carries_nothing(at, len)) {
            assert_int_equal(open_file(envelope, key, "", &text), 0);
            assert_true(same_bytes(plain, text));
            close(text);
        } else {
            refused(envelope, "changed", at);
        }
        assert_int_equal(rs_pwrite_full(envelope, &was, 1, at), 0);
    }
    close(plain);
    close(envelope);
}

static void test_another_key_and_other_data(void **state)
{
    int envelope = sealed_file(5000, 1, key, "of this"), text;
    (void)state;
    assert_int_equal(open_file(envelope, other, "of this", &text), RESEAL_EKEYBAD);
    assert_int_equal(length_of(text), 0);
    close(text);
    assert_int_equal(open_file(envelope, key, "of that", &text), RESEAL_EAUTH);
    assert_int_equal(length_of(text), 0);
    close(text);
    close(envelope);
}

static void test_a_pipe_is_refused(void **state)
{
    static struct rs_envelope_file f;
    char why[RS_ENVELOPE_WHY] = "";
    int ends[2];
    (void)state;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(rs_envelope_load(&f, ends[0], why), RESEAL_EINVAL);
    assert_non_null(strstr(why, "regular file"));
    close(ends[0]);
    close(ends[1]);
}

/* The owner of the file, who changes it once the text begins to come. */
struct owner {
    int envelope;
    uint64_t got;
    uint64_t spoil; /* byte of the file */
    bool shorten;
};

static int spoil_it(void *arg, const uint8_t *text, size_t len)
{
    struct owner *o = arg;
    (void)text;
    if (o->got == 0 && o->shorten) assert_int_equal(ftruncate(o->envelope, (off_t)o->spoil), 0);
    if (o->got == 0 && !o->shorten) {
        uint8_t byte;
        assert_int_equal(rs_pread_full(o->envelope, &byte, 1, o->spoil), 0);
        byte ^= 0x10;
        assert_int_equal(rs_pwrite_full(o->envelope, &byte, 1, o->spoil), 0);
    }
    o->got += len;
    return 0;
}

static void test_a_file_that_changes_while_it_is_read(void **state)
{
    static struct rs_envelope_file f;
    char why[RS_ENVELOPE_WHY];
    uint64_t len, mib = 1u << 20;
    (void)state;
    for (int shorten = 0; shorten < 2; shorten++) {
        struct owner o = {.envelope = sealed_file(5 * mib, 9, key, ""),
                          .spoil = 4096 + 3 * mib + 77,
                          .shorten = shorten != 0};
        assert_int_equal(rs_envelope_load(&f, o.envelope, why), 0);
        assert_int_equal(rs_envelope_open(&f, key, "", spoil_it, &o, &len, why), RESEAL_EAUTH);
        assert_non_null(strstr(why, "while it was read"));
        assert_int_equal(o.got, 3 * mib); /* what was authenticated, and nothing behind it */
        close(o.envelope);
    }
}

static int stop_at_once(void *arg, const uint8_t *text, size_t len)
{
    (void)text;
    (void)len;
    ++*(int *)arg;
    return RESEAL_EIO;
}

static void test_a_sink_ends_it(void **state)
{
    static struct rs_envelope_file f;
    char why[RS_ENVELOPE_WHY];
    uint64_t len;
    int calls = 0, envelope = sealed_file(3u << 20, 9, key, "");
    (void)state;
    assert_int_equal(rs_envelope_load(&f, envelope, why), 0);
    assert_int_equal(rs_envelope_open(&f, key, "", stop_at_once, &calls, &len, why), RESEAL_EIO);
    assert_int_equal(calls, 1);
    assert_int_equal(rs_envelope_open(&f, key, "", NULL, NULL, &len, why), 0);
    assert_int_equal(len, 3u << 20);
    close(envelope);
}

static void test_a_text_beyond_the_limit_of_gcm(void **state)
{
    struct rs_envelope e;
    struct rs_envelope_seal *s;
    uint8_t byte = 0;
    int fd = pattern_file(0, 0);
    (void)state;
    /* The longest text, its padding and the block inside are what one IV may be used for. */
    assert_true(rs_round_up(RS_ENVELOPE_TEXT_MAX, 4096) + 4096 <= RS_ENVELOPE_BODY_MAX);
    assert_true(rs_round_up(RS_ENVELOPE_TEXT_MAX + 1, 4096) + 4096 > RS_ENVELOPE_BODY_MAX);
    rs_envelope_new(&e);
    assert_int_equal(rs_envelope_put_text(&e, RS_ENVELOPE_KEY_INFO, "test"), 0);
    assert_int_equal(rs_envelope_seal_begin(&e, key, "", fd, &s), 0);
    assert_int_equal(rs_envelope_seal_write(s, &byte, (size_t)RS_ENVELOPE_TEXT_MAX + 1), RESEAL_ELIMIT);
    rs_envelope_seal_free(s);
    close(fd);
}

static void test_a_file_beyond_the_limit_of_gcm(void **state)
{
    static struct rs_envelope_file f;
    char why[RS_ENVELOPE_WHY] = "";
    int envelope = sealed_file(100, 1, key, "");
    (void)state;
    assert_int_equal(ftruncate(envelope, (off_t)(RS_ENVELOPE_BODY_MAX + 8192 + 1)), 0);
    assert_int_equal(rs_envelope_load(&f, envelope, why), RESEAL_EFORMAT);
    assert_non_null(strstr(why, "64 GiB"));
    close(envelope);
}

static void test_a_disk_that_is_full(void **state)
{
    struct rs_envelope e;
    struct rs_envelope_seal *s;
    (void)state;
    FILE *full = fopen("/dev/full", "w");
    if (full == NULL) skip();
    rs_envelope_new(&e);
    assert_int_equal(rs_envelope_put_text(&e, RS_ENVELOPE_KEY_INFO, "test"), 0);
    assert_int_equal(rs_envelope_seal_begin(&e, key, "", fileno(full), &s), RESEAL_EIO);
    assert_null(s);
    (void)fclose(full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_bytes_behind_the_end),
        cmocka_unit_test(test_every_changed_byte),
        cmocka_unit_test(test_another_key_and_other_data),
        cmocka_unit_test(test_a_pipe_is_refused),
        cmocka_unit_test(test_a_file_that_changes_while_it_is_read),
        cmocka_unit_test(test_a_sink_ends_it),
        cmocka_unit_test(test_a_text_beyond_the_limit_of_gcm),
        cmocka_unit_test(test_a_file_beyond_the_limit_of_gcm),
        cmocka_unit_test(test_a_disk_that_is_full),
    };
    if (rs_keymem_init(0) != 0) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
