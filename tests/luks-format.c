/* SPDX-License-Identifier: Apache-2.0 */
/* Headers that the service makes open with cryptsetup and, LUKS1, with QEMU, and with the service itself. */
#include "tests/support/keyd.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define PASS "correct horse"

static struct keyd k;
static char image[128], pass[128], wrong[128];

static void write_file(const char *path, const void *bytes, size_t len)
{
    RS_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(rs_write_full(fd, bytes, len), 0);
}

static struct rs_msg_luks_format usual(uint32_t version)
{
    return (struct rs_msg_luks_format){
        .use = 3, .version = version, .data_size = 8 << 20, .pbkdf = 1, .pbkdf_ms = 5};
}

/* The header at the start of an otherwise empty device. */
static void to_image(int header, const struct rs_msg_luks *l)
{
    uint8_t *bytes = malloc(l->header_size);
    assert_non_null(bytes);
    assert_int_equal(lseek(header, 0, SEEK_END), (off_t)l->header_size);
    assert_int_equal(rs_pread_full(header, bytes, l->header_size, 0), 0);
    write_file(image, bytes, l->header_size);
    free(bytes);
    assert_int_equal(truncate(image, (off_t)l->data_offset + (8 << 20)), 0);
}

static void cryptsetup_opens_it(void)
{
    assert_int_equal(RUN("cryptsetup", "open", "--test-passphrase", "--key-file", pass, image), 0);
    assert_int_equal(RUN("cryptsetup", "open", "--test-passphrase", "--key-file", wrong, image), 2);
    assert_int_equal(RUN("cryptsetup", "luksDump", image), 0);
}

/* The key of the new header is the key that opening it gives. */
static void reopens(int sock, const struct rs_msg_luks *made)
{
    struct rs_msg_session_keys one, two;
    struct rs_msg_luks l;
    assert_int_equal(keyd_luks(sock, image, PASS, 3, &l), 0);
    assert_string_equal(l.uuid, made->uuid);
    assert_int_equal(l.data_offset, made->data_offset);
    assert_int_equal(l.header_size, made->header_size);
    assert_int_equal(l.key_bits, made->key_bits);
    assert_int_equal(l.unit, made->unit);
    struct rs_msg_session_request q =
        session_of(RESEAL_XTS, made->key, RESEAL_XTS, made->key, l.unit, l.step);
    assert_int_equal(keyd_session(&k, &q, &one), 0);
    q = session_of(RESEAL_XTS, l.key, RESEAL_XTS, l.key, l.unit, l.step);
    assert_int_equal(keyd_session(&k, &q, &two), 0);
    assert_int_equal(one.src_len, l.key_bits / 4);
    assert_memory_equal(one.src, two.src, one.src_len);
}

static void formats(const struct rs_msg_luks_format *f)
{
    struct rs_msg_luks made;
    int header = -1, sock = keyd_connect(&k);
    assert_int_equal(keyd_format(sock, f, PASS, &made, &header), 0);
    /* Sealed: the client cannot change what the service made, nor the other way round. */
    assert_int_equal(ftruncate(header, 0), -1);
    assert_int_equal(rs_pwrite_full(header, "x", 1, 0), -EPERM);
    if (f->data_offset != 0) assert_int_equal(made.data_offset, f->data_offset);
    assert_true(made.header_size <= made.data_offset);
    to_image(header, &made);
    cryptsetup_opens_it();
    reopens(sock, &made);
    close(header);
    close(sock);
}

static void luks2_with_each_unit(void **state)
{
    (void)state;
    static const uint32_t units[] = {0, 512, 1024, 2048, 4096};
    for (unsigned i = 0; i < RS_ARRAY_LEN(units); i++) {
        struct rs_msg_luks_format f = usual(2);
        f.unit = units[i];
        memcpy(f.label, "reseal", 7);
        formats(&f);
    }
}

static void luks1_opens_with_qemu_too(void **state)
{
    (void)state;
    char object[200], options[300];
    for (uint32_t bits = 128; bits <= 256; bits += 128) {
        struct rs_msg_luks_format f = usual(1);
        f.key_bits = bits;
        formats(&f);
        (void)snprintf(object, sizeof(object), "secret,id=s0,file=%s", pass);
        (void)snprintf(options, sizeof(options), "driver=luks,key-secret=s0,file.filename=%s", image);
        assert_int_equal(RUN("qemu-img", "info", "--object", object, "--image-opts", options), 0);
        assert_int_equal(RUN("qemu-io", "--object", object, "--image-opts", options, "-c", "read 0 64k"), 0);
    }
}

static void the_header_fits_the_offset_asked_for(void **state)
{
    (void)state;
    static const uint64_t offsets[] = {2068480, 1 << 20, 4 << 20, 16 << 20, 64 << 20};
    for (unsigned i = 0; i < RS_ARRAY_LEN(offsets); i++) {
        struct rs_msg_luks_format f = usual(2);
        f.data_offset = offsets[i];
        formats(&f);
        f = usual(1);
        f.data_offset = RS_MAX(offsets[i], 2068480);
        formats(&f);
    }
}

static void the_default_derivation_is_argon2(void **state)
{
    (void)state;
    struct rs_msg_luks_format f = usual(2);
    f.pbkdf = 2;
    f.pbkdf_ms = 10;
    f.key_bits = 128;
    formats(&f);
}

static void bad_wishes_are_refused(void **state)
{
    (void)state;
    int header = -1, sock = keyd_connect(&k);
    struct rs_msg_luks made;
    struct rs_msg_luks_format bad[9];
    for (unsigned i = 0; i < RS_ARRAY_LEN(bad); i++) bad[i] = usual(2);
    bad[0].version = 3;
    bad[1].unit = 8192;
    bad[2].key_bits = 192;
    bad[3].data_offset = 4096; /* no header fits */
    bad[4].data_offset = (16 << 20) + 512;
    bad[5].data_size = 1000;
    bad[6].pbkdf = 3;
    memset(bad[7].label, 'x', sizeof(bad[7].label));
    bad[8].version = 1;
    bad[8].unit = 4096;
    for (unsigned i = 0; i < RS_ARRAY_LEN(bad); i++)
        assert_int_equal(keyd_format(sock, &bad[i], PASS, &made, &header), RESEAL_EINVAL);
    struct rs_msg_luks_format f = usual(2);
    assert_int_equal(keyd_format(sock, &f, "", &made, &header), RESEAL_EPASS);
    close(sock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(luks2_with_each_unit),
        cmocka_unit_test(luks1_opens_with_qemu_too),
        cmocka_unit_test(the_header_fits_the_offset_asked_for),
        cmocka_unit_test(the_default_derivation_is_argon2),
        cmocka_unit_test(bad_wishes_are_refused),
    };
    signal(SIGPIPE, SIG_IGN);
    /* A key derivation takes its time on a busy machine. */
    setenv("RESEAL_KEYD_DEADLINE", "300", 1);
    keyd_start(&k, NULL);
    (void)snprintf(image, sizeof(image), "%s/image", k.dir);
    (void)snprintf(pass, sizeof(pass), "%s/pass", k.dir);
    (void)snprintf(wrong, sizeof(wrong), "%s/wrong", k.dir);
    write_file(pass, PASS, strlen(PASS));
    write_file(wrong, "nothing", 7);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    keyd_stop(&k);
    return failed;
}
