/* SPDX-License-Identifier: Apache-2.0 */
/* The backup of a native provider: read back by us, by openssl and by Java; written anew by Java and read by
 * us. */
#include "offload/base/keymem.h"
#include "providers/key/native/native.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define PASSWORD "a long pass phrase"

static char folder[64];
static struct rs_native_kdk kdk;
static uint8_t *der;
static size_t der_len;

static void path_of(const char *name, char path[128])
{
    (void)snprintf(path, 128, "%s/%s", folder, name);
}

static void write_file(const char *name, const void *bytes, size_t len)
{
    char path[128];
    path_of(name, path);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static size_t read_file(const char *name, uint8_t *bytes, size_t room)
{
    char path[128];
    path_of(name, path);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    size_t len = fread(bytes, 1, room, f);
    assert_int_equal(fclose(f), 0);
    return len;
}

/* Runs a command in the folder; what it prints, and its exit code. */
static int run(const char *command, char *out, size_t room)
{
    char line[2048];
    (void)snprintf(line, sizeof(line), "cd '%s' && { %s ; } 2>&1 </dev/null", folder, command);
    FILE *f = popen(line, "re");
    assert_non_null(f);
    size_t n = fread(out, 1, room - 1, f);
    out[n] = '\0';
    return pclose(f);
}

static void test_it_comes_back(void **state)
{
    struct rs_native_kdk back = {0};
    (void)state;
    assert_int_equal(rs_native_restore(der, der_len, PASSWORD, &back), 0);
    assert_memory_equal(&back, &kdk, sizeof(kdk));
}

static void test_a_wrong_password_is_told(void **state)
{
    static const struct rs_native_kdk none;
    struct rs_native_kdk back;
    uint8_t *other;
    size_t len;
    (void)state;
    assert_int_equal(rs_native_restore(der, der_len, "another pass phrase", &back), RESEAL_EPASS);
    assert_memory_equal(&back, &none, sizeof(none));
    assert_int_equal(rs_native_restore(der, der_len, "", &back), RESEAL_EPASS);
    assert_int_equal(rs_native_backup(&kdk, "p", "short", &other, &len), RESEAL_EPASS);
    assert_int_equal(rs_native_backup(&kdk, "p", "", &other, &len), RESEAL_EPASS);
}

/* Cut at every byte, and each byte changed: an error, never another key. */
static void test_damage_is_told(void **state)
{
    struct rs_native_kdk back;
    uint8_t *copy = malloc(der_len);
    (void)state;
    assert_non_null(copy);
    for (size_t len = 0; len < der_len; len++)
        assert_int_equal(rs_native_restore(der, len, PASSWORD, &back), RESEAL_EFORMAT);
    for (size_t i = 0; i < der_len; i += 1 + der_len / 40) {
        memcpy(copy, der, der_len);
        copy[i] ^= 0x41;
        int err = rs_native_restore(copy, der_len, PASSWORD, &back);
        assert_true(err == RESEAL_EFORMAT || err == RESEAL_EPASS);
    }
    free(copy);
}

static void test_openssl_reads_it(void **state)
{
    char out[8192];
    (void)state;
    write_file("backup.p12", der, der_len);
    assert_int_equal(
        run("openssl pkcs12 -in backup.p12 -info -noout -passin 'pass:" PASSWORD "'", out, sizeof(out)), 0);
    assert_non_null(strstr(out, "Secret bag"));
    assert_non_null(strstr(out, "sha256, Iteration 200000"));
    assert_int_not_equal(
        run("openssl pkcs12 -in backup.p12 -info -noout -passin pass:wrong", out, sizeof(out)), 0);
}

static void test_java_reads_it_and_we_read_java(void **state)
{
    struct rs_native_kdk back;
    uint8_t bytes[16384];
    char out[8192];
    (void)state;
    write_file("backup.p12", der, der_len);
    assert_int_equal(run("keytool -list -v -storetype PKCS12 -keystore backup.p12 -storepass '" PASSWORD "'",
                         out, sizeof(out)),
                     0);
    assert_non_null(strstr(out, "SecretKeyEntry"));
    assert_int_equal(run("keytool -importkeystore -srckeystore backup.p12 -srcstoretype PKCS12 "
                         "-srcstorepass '" PASSWORD "' -destkeystore java.p12 -deststoretype PKCS12 "
                         "-deststorepass '" PASSWORD "'",
                         out, sizeof(out)),
                     0);
    size_t len = read_file("java.p12", bytes, sizeof(bytes));
    assert_int_equal(rs_native_restore(bytes, len, PASSWORD, &back), 0);
    assert_memory_equal(&back, &kdk, sizeof(kdk));
}

static int start(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/reseal-native-XXXXXX");
    if (mkdtemp(folder) == NULL || rs_keymem_init(0) != 0 || rs_native_kdk_make(&kdk) != 0) return -1;
    return rs_native_backup(&kdk, "the provider", PASSWORD, &der, &der_len);
}

static int stop(void **state)
{
    char out[256];
    (void)state;
    OPENSSL_free(der);
    return run("rm -f backup.p12 java.p12", out, sizeof(out)) == 0 && rmdir(folder) == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_comes_back),
        cmocka_unit_test(test_a_wrong_password_is_told),
        cmocka_unit_test(test_damage_is_told),
        cmocka_unit_test(test_openssl_reads_it),
        cmocka_unit_test(test_java_reads_it_and_we_read_java),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
