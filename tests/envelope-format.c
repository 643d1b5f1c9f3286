/* SPDX-License-Identifier: Apache-2.0 */
/* Envelopes: what is sealed opens again, here and in another program's reading of the format, and the other
 * way round. */
#include "offload/base/keymem.h"
#include "providers/key/envelope.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"
#include "tests/support/envelopes.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static const uint8_t key[RS_ENVELOPE_KEY] = "thirty-two bytes of a known key";

static const uint64_t lengths[] = {0, 1, 4095, 4096, 4097, (1u << 20) - 1, 1u << 20, (1u << 20) + 1, 3333333};

/* ---- the other program --------------------------------------------------------------- */

/* The exit code of tests/support/envelope.py; 77: there is none here. */
static int other_program(int in, int out, const char *const *words)
{
    /* The whole path: a bare name has Python look for its modules where PATH has another one. */
    char path[4096], *argv[9] = {(char[]){"/usr/bin/python3"}, path};
    const char *source = getenv("RESEAL_SOURCE");
    (void)snprintf(path, sizeof(path), "%s/tests/support/envelope.py", source != NULL ? source : ".");
    for (int i = 0; words[i] != NULL; i++) argv[i + 2] = (char *)(uintptr_t)words[i];
    pid_t pid = fork();
    if (pid == 0) {
        if (dup2(in, 0) < 0 || dup2(out, 1) < 0) _exit(2);
        execv(argv[0], argv);
        _exit(77);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
#define OTHER(in, out, ...) other_program(in, out, (const char *const[]){__VA_ARGS__, NULL})

static void hex(const uint8_t *bytes, size_t len, char *out)
{
    for (size_t i = 0; i < len; i++) (void)snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

/* A path by which another program opens one of our descriptors. */
struct path {
    char text[64];
};
static const char *path_of(int fd, struct path *p)
{
    (void)snprintf(p->text, sizeof(p->text), "/proc/%d/fd/%d", getpid(), fd);
    return p->text;
}

static int empty(void)
{
    return pattern_file(0, 0);
}

/* ---- tests --------------------------------------------------------------------------- */

static void test_what_is_sealed_opens(void **state)
{
    (void)state;
    for (unsigned i = 0; i < RS_ARRAY_LEN(lengths); i++) {
        int text, plain = pattern_file(lengths[i], i), envelope = sealed_file(lengths[i], i, key, "");
        assert_int_equal(open_file(envelope, key, "", &text), 0);
        assert_true(same_bytes(plain, text));
        /* Header, body of whole blocks, the block inside, footer. */
        assert_int_equal(length_of(envelope), rs_round_up(lengths[i], 4096) + 3 * 4096);
        close(plain);
        close(envelope);
        close(text);
    }
}

static void test_another_program_reads_ours(void **state)
{
    char keyhex[65];
    (void)state;
    hex(key, sizeof(key), keyhex);
    for (unsigned i = 0; i < RS_ARRAY_LEN(lengths); i++) {
        struct path p;
        int plain = pattern_file(lengths[i], i),
            envelope = sealed_file(lengths[i], i, key, "ESXConfiguration");
        int text = empty();
        int code = OTHER(STDIN_FILENO, text, "open", keyhex, path_of(envelope, &p), "ESXConfiguration");
        if (code == 77) skip();
        assert_int_equal(code, 0);
        assert_true(same_bytes(plain, text));
        close(plain);
        close(envelope);
        close(text);
    }
}

static void test_we_read_another_programs(void **state)
{
    char keyhex[65];
    (void)state;
    hex(key, sizeof(key), keyhex);
    for (unsigned i = 0; i < RS_ARRAY_LEN(lengths); i++) {
        struct path p;
        int plain = pattern_file(lengths[i], i), envelope = empty(), text;
        assert_int_equal(lseek(plain, 0, SEEK_SET), 0);
        int code = OTHER(plain, STDOUT_FILENO, "seal", keyhex, path_of(envelope, &p), "ESXConfiguration");
        if (code == 77) skip();
        assert_int_equal(code, 0);
        assert_int_equal(open_file(envelope, key, "ESXConfiguration", &text), 0);
        assert_true(same_bytes(plain, text));
        close(text);
        assert_int_equal(open_file(envelope, key, "", &text), RESEAL_EAUTH);
        close(plain);
        close(envelope);
        close(text);
    }
}

static void test_a_salt_makes_the_key_of_a_file(void **state)
{
    static struct rs_envelope_file f;
    uint8_t file_key[RS_ENVELOPE_KEY];
    char keyhex[65], why[RS_ENVELOPE_WHY];
    struct path p;
    (void)state;
    hex(key, sizeof(key), keyhex);
    int plain = pattern_file(10000, 5), envelope = empty(), text;
    assert_int_equal(lseek(plain, 0, SEEK_SET), 0);
    int code = OTHER(plain, STDOUT_FILENO, "seal", "--salt", keyhex, path_of(envelope, &p));
    if (code == 77) skip();
    assert_int_equal(code, 0);
    assert_int_equal(rs_envelope_load(&f, envelope, why), 0);
    assert_int_equal(rs_envelope_file_key(&f.header, key, file_key), 0);
    assert_memory_not_equal(file_key, key, sizeof(key));
    assert_int_equal(open_file(envelope, file_key, "", &text), 0);
    assert_true(same_bytes(plain, text));
    close(text);
    assert_int_equal(open_file(envelope, key, "", &text), RESEAL_EKEYBAD);
    close(plain);
    close(envelope);
    close(text);
}

static void test_two_files_of_one_key_share_nothing(void **state)
{
    static struct rs_envelope one, two;
    uint8_t a[RS_ENVELOPE_KEY], b[RS_ENVELOPE_KEY];
    (void)state;
    rs_envelope_new(&one);
    rs_envelope_new(&two);
    assert_int_equal(rs_envelope_put_salt(&one), 0);
    assert_int_equal(rs_envelope_put_salt(&two), 0);
    assert_int_equal(rs_envelope_put_salt(&two), RESEAL_EINVAL);
    assert_int_equal(rs_envelope_file_key(&one, key, a), 0);
    assert_int_equal(rs_envelope_file_key(&two, key, b), 0);
    assert_memory_not_equal(a, b, sizeof(a));
}

static void test_a_pass_phrase(void **state)
{
    static struct rs_envelope e;
    static struct rs_envelope_file f;
    struct rs_envelope_seal *s;
    uint8_t file_key[RS_ENVELOPE_KEY], again[RS_ENVELOPE_KEY];
    char phrase_file[] = "/tmp/reseal-phrase-XXXXXX", spec[64], why[RS_ENVELOPE_WHY];
    int envelope = empty(), text = empty(), fd = mkstemp(phrase_file);
    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(rs_write_full(fd, "correct horse", 13), 0);
    rs_envelope_new(&e);
    assert_int_equal(rs_envelope_phrase_key(&e, "correct horse", 13, file_key), RESEAL_EFORMAT);
    assert_int_equal(rs_envelope_put_text(&e, RS_ENVELOPE_KEY_INFO, "reseal:phrase"), 0);
    assert_int_equal(rs_envelope_put_phrase(&e), 0);
    assert_int_equal(rs_envelope_phrase_key(&e, "correct horse", 13, file_key), 0);
    assert_int_equal(rs_envelope_seal_begin(&e, file_key, "", envelope, &s), 0);
    assert_int_equal(rs_envelope_seal_write(s, (const uint8_t *)"the text", 8), 0);
    assert_int_equal(rs_envelope_seal_end(s), 0);
    rs_envelope_seal_free(s);
    assert_int_equal(rs_envelope_load(&f, envelope, why), 0);
    assert_int_equal(rs_envelope_phrase_key(&f.header, "correct horse", 13, again), 0);
    assert_memory_equal(again, file_key, sizeof(again));
    (void)snprintf(spec, sizeof(spec), "phrase:%s", phrase_file);
    struct path p;
    int code = OTHER(STDIN_FILENO, text, "open", spec, path_of(envelope, &p));
    (void)unlink(phrase_file);
    close(fd);
    if (code == 77) skip();
    assert_int_equal(code, 0);
    char got[9] = "";
    assert_int_equal(rs_pread_full(text, got, 8, 0), 0);
    assert_string_equal(got, "the text");
    close(envelope);
    close(text);
}

static void test_attributes_come_back(void **state)
{
    static struct rs_envelope e, back;
    char why[RS_ENVELOPE_WHY], name[16];
    uint8_t bytes[200];
    (void)state;
    memset(bytes, 0xa5, sizeof(bytes));
    rs_envelope_new(&e);
    assert_int_equal(rs_envelope_put_text(&e, RS_ENVELOPE_CIPHER, "AES-256-GCM"), 0);
    assert_int_equal(rs_envelope_put_text(&e, RS_ENVELOPE_KEY_INFO, ""), 0);
    assert_int_equal(rs_envelope_put_bytes(&e, RS_ENVELOPE_KEY_HASH, bytes, 32), 0);
    assert_int_equal(rs_envelope_put_bytes(&e, RS_ENVELOPE_IV, bytes, 12), 0);
    assert_int_equal(rs_envelope_put_bytes(&e, "x-Empty", NULL, 0), 0);
    assert_int_equal(rs_envelope_put_text(&e, "x-Name", "grüße"), 0);
    assert_int_equal(rs_envelope_put_text(&e, "x-Name", "twice"), RESEAL_EINVAL);
    assert_int_equal(rs_envelope_put_text(&e, "", "no name"), RESEAL_EINVAL);
    assert_int_equal(rs_envelope_put_text(&e, "a b", "a blank"), RESEAL_EINVAL);
    memcpy(back.block, e.block, sizeof(e.block));
    assert_int_equal(rs_envelope_parse(&back, why), 0);
    assert_int_equal(back.n, 6);
    assert_string_equal(rs_envelope_text(&back, "x-Name"), "grüße");
    assert_null(rs_envelope_text(&back, "x-Empty"));
    assert_int_equal(rs_envelope_find(&back, "x-Empty")->len, 0);
    assert_memory_equal(rs_envelope_find(&back, RS_ENVELOPE_IV)->value, bytes, 12);
    /* Until it is full, and then it still parses. */
    int r = 0;
    for (unsigned i = 0; r == 0; i++) {
        (void)snprintf(name, sizeof(name), "n%u", i);
        r = rs_envelope_put_bytes(&e, name, bytes, sizeof(bytes));
    }
    assert_int_equal(r, RESEAL_ESPACE);
    memcpy(back.block, e.block, sizeof(e.block));
    assert_int_equal(rs_envelope_parse(&back, why), 0);
    assert_int_equal(back.n, e.n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_sealed_opens),
        cmocka_unit_test(test_another_program_reads_ours),
        cmocka_unit_test(test_we_read_another_programs),
        cmocka_unit_test(test_a_salt_makes_the_key_of_a_file),
        cmocka_unit_test(test_two_files_of_one_key_share_nothing),
        cmocka_unit_test(test_a_pass_phrase),
        cmocka_unit_test(test_attributes_come_back),
    };
    if (rs_keymem_init(0) != 0) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
