/* SPDX-License-Identifier: Apache-2.0 */
/* Headers made by qemu-img and cryptsetup: the key that comes out decrypts their data; the bad ones are told
 * apart. */
#include "providers/key/source.h"
#include "tests/support/keyd.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/evp.h>

#define PASS     "correct horse"
#define DATA_LEN ((size_t)256 << 10)

static struct keyd k;
static uint8_t data[DATA_LEN]; /* what the images hold at their beginning */
static char names[8][128];

/* A path in the scratch folder; eight live at a time. */
static const char *at(const char *name)
{
    static unsigned turn;
    char *path = names[turn++ % RS_ARRAY_LEN(names)];
    (void)snprintf(path, sizeof(names[0]), "%s/%s", k.dir, name);
    return path;
}

static void write_file(const char *path, const void *bytes, size_t len, off_t size)
{
    RS_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(rs_write_full(fd, bytes, len), 0);
    assert_int_equal(ftruncate(fd, size), 0);
}

static void poke(const char *path, off_t offset, size_t len)
{
    uint8_t junk[4096];
    RS_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
    memset(junk, 0xa7, sizeof(junk));
    assert_int_equal(rs_pwrite_full(fd, junk, len, (uint64_t)offset), 0);
}

static const char *pass_file(void)
{
    const char *path = at("pass");
    write_file(path, PASS, strlen(PASS), (off_t)strlen(PASS));
    return path;
}

/* An empty LUKS2 header. */
static const char *luks2(const char *name, const char *cipher, const char *bits, const char *sector)
{
    const char *image = at(name);
    write_file(image, "", 0, 20 << 20);
    assert_int_equal(RUN("cryptsetup", "luksFormat", "--type", "luks2", "--batch-mode", "--cipher", cipher,
                         "--key-size", bits, "--sector-size", sector, "--pbkdf", "pbkdf2",
                         "--pbkdf-force-iterations", "1000", "--key-file", pass_file(), image),
                     0);
    return image;
}

/* The session key of a LUKS volume must turn the image's data into `data`. */
static void decrypts(int sock, const char *image, const struct rs_msg_luks *l)
{
    static const struct rs_msg_key_use random = {
        .cipher = RESEAL_XTS, .use = 2, .unit = 4096, .bits = 256, .step = 8};
    struct rs_msg_session_keys keys;
    reseal_key other;
    size_t len;
    uint8_t *bytes = file_bytes(image, &len), plain[4096];
    assert_int_equal(keyd_random(sock, &random, &other), 0);
    struct rs_msg_session_request q = session_of(RESEAL_XTS, l->key, RESEAL_XTS, other, l->unit, l->step);
    q.transform.destination.unit = 4096;
    q.transform.destination.step = 8;
    assert_int_equal(keyd_session(&k, &q, &keys), 0);
    assert_int_equal(keys.src_bits, l->key_bits);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    for (size_t u = 0; u < DATA_LEN / l->unit; u++) {
        uint8_t tweak[16] = {0};
        int n = 0;
        rs_store_le64(tweak, l->first_tweak + u * l->step);
        assert_int_equal(EVP_DecryptInit_ex(ctx, keys.src_bits == 256 ? EVP_aes_256_xts() : EVP_aes_128_xts(),
                                            NULL, keys.src, tweak),
                         1);
        assert_int_equal(
            EVP_DecryptUpdate(ctx, plain, &n, bytes + l->data_offset + u * l->unit, (int)l->unit), 1);
        assert_memory_equal(plain, data + u * l->unit, l->unit);
    }
    EVP_CIPHER_CTX_free(ctx);
    free(bytes);
}

static void luks1_of_qemu_img(void **state)
{
    (void)state;
    const char *image = at("q.luks"), *plain = at("plain");
    char object[200], target[200];
    struct rs_msg_luks l;
    write_file(plain, data, sizeof(data), 1 << 20);
    (void)snprintf(object, sizeof(object), "secret,id=s0,file=%s", pass_file());
    (void)snprintf(target, sizeof(target), "driver=luks,key-secret=s0,file.filename=%s", image);
    assert_int_equal(RUN("qemu-img", "create", "-f", "luks", "--object", object, "-o",
                         "key-secret=s0,cipher-alg=aes-256,cipher-mode=xts,ivgen-alg=plain64,iter-time=10",
                         image, "1M"),
                     0);
    assert_int_equal(RUN("qemu-img", "convert", "-n", "-f", "raw", plain, "--object", object,
                         "--target-image-opts", target),
                     0);
    int sock = keyd_connect(&k);
    assert_int_equal(keyd_luks(sock, image, PASS, RESEAL_USE_SOURCE, &l), 0);
    assert_int_equal(l.version, 1);
    assert_int_equal(l.unit, 512);
    assert_int_equal(l.step, 1);
    assert_int_equal(l.key_bits, 256);
    assert_int_equal(l.keyslot, 0);
    assert_string_equal(l.cipher, "aes-xts-plain64");
    decrypts(sock, image, &l);
    close(sock);
}

static void luks2_of_cryptsetup(void **state)
{
    (void)state;
    static const char *const sectors[] = {"512", "4096"};
    static const char *const bits[] = {"256", "512"};
    for (unsigned i = 0; i < 2; i++) {
        const char *image = at("c.luks");
        struct rs_msg_luks l;
        write_file(image, data, sizeof(data), 40 << 20);
        /* Encrypts what is there, in user space: known data without a device mapper. It wants
         * /run/cryptsetup. */
        int made = RUN("cryptsetup", "reencrypt", "--encrypt", "--batch-mode", "--type", "luks2", "--cipher",
                       "aes-xts-plain64", "--key-size", bits[i], "--sector-size", sectors[i], "--pbkdf",
                       "pbkdf2", "--pbkdf-force-iterations", "1000", "--reduce-device-size", "32M",
                       "--force-offline-reencrypt", "--key-file", pass_file(), image);
        if (made != 0 && getuid() != 0) skip();
        assert_int_equal(made, 0);
        int sock = keyd_connect(&k);
        assert_int_equal(keyd_luks(sock, image, PASS, 3, &l), 0);
        assert_int_equal(l.version, 2);
        assert_int_equal(l.unit, atoi(sectors[i]));
        assert_int_equal(l.step, l.unit / 512);
        assert_int_equal(l.key_bits * 2, atoi(bits[i]));
        decrypts(sock, image, &l);
        close(sock);
    }
}

static void the_key_is_what_cryptsetup_dumps(void **state)
{
    (void)state;
    const char *image = luks2("d.luks", "aes-xts-plain64", "512", "4096"), *dump = at("dump");
    struct rs_msg_session_keys keys;
    struct rs_msg_luks l;
    size_t len;
    (void)unlink(dump);
    assert_int_equal(RUN("cryptsetup", "luksDump", "--batch-mode", "--dump-volume-key", "--volume-key-file",
                         dump, "--key-file", pass_file(), image),
                     0);
    uint8_t *key = file_bytes(dump, &len);
    int sock = keyd_connect(&k);
    assert_int_equal(keyd_luks(sock, image, PASS, 3, &l), 0);
    struct rs_msg_session_request q = session_of(RESEAL_XTS, l.key, RESEAL_XTS, l.key, 4096, 8);
    assert_int_equal(keyd_session(&k, &q, &keys), 0);
    assert_int_equal(len, 64);
    assert_memory_equal(key, keys.src, 64);
    free(key);
    close(sock);
}

static void pass_phrases_are_exact(void **state)
{
    (void)state;
    const char *image = luks2("p.luks", "aes-xts-plain64", "512", "512");
    struct rs_msg_luks l;
    int sock = keyd_connect(&k);
    assert_int_equal(keyd_luks(sock, image, PASS "\n", 3, &l), RESEAL_EPASS);
    assert_int_equal(keyd_luks(sock, image, "wrong", 3, &l), RESEAL_EPASS);
    assert_int_equal(keyd_luks(sock, image, "", 3, &l), RESEAL_EPASS);
    assert_int_equal(keyd_luks(sock, image, PASS, 3, &l), 0);
    uint8_t *much = calloc(1, RS_PASSPHRASE_MAX + 1);
    RS_CLOSE int header = open(image, O_RDONLY | O_CLOEXEC), most = text_fd(much, RS_PASSPHRASE_MAX),
                 more = text_fd(much, RS_PASSPHRASE_MAX + 1);
    assert_int_equal(keyd_luks_fds(sock, header, most, 3, &l), RESEAL_EPASS);
    assert_int_equal(keyd_luks_fds(sock, header, more, 3, &l), RESEAL_EINVAL);
    assert_int_equal(keyd_luks_fds(sock, header, -1, 3, &l), RESEAL_EINVAL); /* no pass phrase at all */
    free(much);
    close(sock);
}

static void the_header_alone_tells_without_a_pass_phrase(void **state)
{
    (void)state;
    const char *image = luks2("i.luks", "aes-xts-plain64", "512", "4096");
    struct rs_msg_luks l;
    int sock = keyd_connect(&k);
    RS_CLOSE int header = open(image, O_RDONLY | O_CLOEXEC);
    assert_int_equal(lseek(header, 77, SEEK_SET), 77);
    assert_int_equal(keyd_luks_fds(sock, header, -1, 0, &l), 0);
    assert_int_equal(lseek(header, 0, SEEK_CUR), 77);
    assert_int_equal(l.key.id[0], 0);
    assert_int_equal(l.data_offset, 16 << 20);
    assert_int_equal(l.header_size, 16 << 20);
    assert_int_equal(strlen(l.uuid), 36);
    close(sock);
}

static void other_ciphers_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *cipher, *bits;
    } others[] = {{"aes-cbc-essiv:sha256", "256"}, {"serpent-xts-plain64", "512"}, {"aes-xts-plain", "512"}};
    int sock = keyd_connect(&k);
    for (unsigned i = 0; i < RS_ARRAY_LEN(others); i++) {
        const char *image = at("o.luks");
        struct rs_msg_luks l;
        write_file(image, "", 0, 20 << 20);
        int made = RUN("cryptsetup", "luksFormat", "--type", "luks2", "--batch-mode", "--cipher",
                       others[i].cipher, "--key-size", others[i].bits, "--pbkdf", "pbkdf2",
                       "--pbkdf-force-iterations", "1000", "--luks2-keyslot-cipher", "aes-xts-plain64",
                       "--luks2-keyslot-key-size", "512", "--key-file", pass_file(), image);
        if (made != 0) continue; /* this machine's cryptsetup cannot make it */
        assert_int_equal(keyd_luks(sock, image, PASS, 3, &l), RESEAL_ECIPHER);
        assert_string_equal(l.cipher, others[i].cipher);
        assert_int_equal(keyd_luks(sock, image, NULL, 0, &l), 0);
        assert_string_equal(l.cipher, others[i].cipher);
    }
    close(sock);
}

static void damage_of_one_copy_is_survived_and_not_mended(void **state)
{
    (void)state;
    static const off_t copies[] = {200, 16384 + 200};
    int sock = keyd_connect(&k);
    struct rs_msg_luks l;
    for (unsigned i = 0; i < 2; i++) {
        const char *image = luks2("g.luks", "aes-xts-plain64", "512", "4096");
        size_t len, len2;
        poke(image, copies[i], 300);
        uint8_t *before = file_bytes(image, &len);
        assert_int_equal(keyd_luks(sock, image, PASS, 3, &l), 0);
        uint8_t *after = file_bytes(image, &len2);
        assert_int_equal(len, len2);
        assert_memory_equal(before, after, len);
        free(before);
        free(after);
        poke(image, copies[1 - i], 300);
        assert_int_equal(keyd_luks(sock, image, PASS, 3, &l), RESEAL_EFORMAT);
    }
    close(sock);
}

static void what_is_no_luks_header_says_so(void **state)
{
    (void)state;
    static const off_t cuts[] = {0, 6, 511, 512, 4095, 4096, 16384, 32768};
    const char *image = luks2("t.luks", "aes-xts-plain64", "512", "4096"), *junk = at("junk");
    int sock = keyd_connect(&k);
    struct rs_msg_luks l;
    for (unsigned i = 0; i < RS_ARRAY_LEN(cuts); i++) {
        size_t len;
        uint8_t *bytes = file_bytes(image, &len);
        write_file(junk, bytes, (size_t)cuts[i], cuts[i]);
        free(bytes);
        int r = keyd_luks(sock, junk, PASS, 3, &l);
        assert_true(r == RESEAL_EFORMAT || r == RESEAL_EPASS);
    }
    write_file(junk, data, sizeof(data), 20 << 20);
    assert_int_equal(keyd_luks(sock, junk, PASS, 3, &l), RESEAL_EFORMAT);
    RS_CLOSE int pass = text_fd(PASS, strlen(PASS)), null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(keyd_luks_fds(sock, null, pass, 3, &l), RESEAL_EINVAL);
    close(sock);
}

/* Whatever a header says, the worst is an error for its own client. */
static void altered_headers_do_no_harm(void **state)
{
    (void)state;
    const char *image = luks2("a.luks", "aes-xts-plain64", "512", "512"), *altered = at("altered");
    int sock = keyd_connect(&k);
    struct rs_msg_luks l;
    size_t len;
    unsigned seed = 1;
    uint8_t *bytes = file_bytes(image, &len);
    for (unsigned i = 0; i < 60; i++) {
        size_t where = (size_t)rand_r(&seed) % (i % 2 != 0 ? 512 : 8192), n = 1 + (size_t)rand_r(&seed) % 8;
        uint8_t kept[8];
        memcpy(kept, bytes + where, n);
        for (size_t j = 0; j < n; j++) bytes[where + j] = (uint8_t)rand_r(&seed);
        write_file(altered, bytes, 64 << 10, 20 << 20);
        memcpy(bytes + where, kept, n);
        int r = keyd_luks(sock, altered, PASS, 3, &l);
        assert_true(r == 0 || r == RESEAL_EFORMAT || r == RESEAL_EPASS || r == RESEAL_ECIPHER);
    }
    free(bytes);
    close(sock);
}

static void a_reencryption_under_way_is_busy(void **state)
{
    (void)state;
    const char *image = luks2("r.luks", "aes-xts-plain64", "512", "512");
    int sock = keyd_connect(&k);
    struct rs_msg_luks l;
    if (RUN("cryptsetup", "reencrypt", "--init-only", "--batch-mode", "--pbkdf", "pbkdf2",
            "--pbkdf-force-iterations", "1000", "--force-offline-reencrypt", "--key-file", pass_file(),
            image) != 0)
        skip();
    assert_int_equal(keyd_luks(sock, image, PASS, 3, &l), RESEAL_EBUSY);
    close(sock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(luks1_of_qemu_img),
        cmocka_unit_test(luks2_of_cryptsetup),
        cmocka_unit_test(the_key_is_what_cryptsetup_dumps),
        cmocka_unit_test(pass_phrases_are_exact),
        cmocka_unit_test(the_header_alone_tells_without_a_pass_phrase),
        cmocka_unit_test(other_ciphers_are_named),
        cmocka_unit_test(damage_of_one_copy_is_survived_and_not_mended),
        cmocka_unit_test(what_is_no_luks_header_says_so),
        cmocka_unit_test(altered_headers_do_no_harm),
        cmocka_unit_test(a_reencryption_under_way_is_busy),
    };
    for (size_t i = 0; i < DATA_LEN; i++) data[i] = (uint8_t)(i * 131 + (i >> 9));
    signal(SIGPIPE, SIG_IGN);
    keyd_start(&k, NULL);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    keyd_stop(&k);
    return failed;
}
