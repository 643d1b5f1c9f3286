/* SPDX-License-Identifier: Apache-2.0 */
/* An engine that fails its self-test is not used, and says why; the others go on. */
#include "providers/crypto/engine.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* The registry is made once in a process: each case gets its own. */
static void in_child(const char *fail, bool (*holds)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        if (fail != NULL) setenv("RESEAL_SELFTEST_FAIL", fail, 1);
        _exit(holds() ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static const struct rs_shape xts = {.src = RS_XTS,
                                    .dst = RS_XTS,
                                    .src_bits = 256,
                                    .dst_bits = 256,
                                    .src_unit = 4096,
                                    .dst_unit = 4096,
                                    .len = 4096};

static bool all_pass(void)
{
    for (const struct rs_engine *const *e = rs_engines_known(); *e != NULL; e++) {
        const char *why = rs_engine_fault((*e)->name);
        if (*why != '\0' && strcmp(why, "cpu") != 0) {
            printf("%s: %s\n", (*e)->name, why);
            return false;
        }
        if ((*why == '\0') != (rs_engine_by_name((*e)->name) == *e)) return false;
    }
    return rs_engine_by_name("openssl") != NULL && rs_engine_by_name("open") == NULL;
}

static bool openssl_is_out(void)
{
    if (strcmp(rs_engine_fault("openssl"), "selftest failed: xts-gcm 128/128") != 0) return false;
    if (rs_engine_by_name("openssl") != NULL) return false;
    for (const struct rs_engine *const *e = rs_engines(); *e != NULL; e++)
        if (strcmp((*e)->name, "openssl") == 0) return false;
    /* Whatever is left works without it. */
    for (const struct rs_engine *const *e = rs_engines_known(); *e != NULL; e++)
        if (strcmp((*e)->name, "openssl") != 0 && strncmp(rs_engine_fault((*e)->name), "self", 4) == 0)
            return false;
    return true;
}

static bool base_vector_names_itself(void)
{
    return strcmp(rs_engine_fault("openssl"), "selftest failed: xts 128, published vector 0") == 0;
}

static bool vaes_is_out(void)
{
    for (const struct rs_engine *const *e = rs_engines(); *e != NULL; e++)
        if (strncmp((*e)->name, "vaes", 4) == 0) return false;
    const struct rs_engine *best = rs_engine_best(&xts);
    return best != NULL && strcmp(best->name, "openssl") == 0 && rs_engine_by_name("vaes") == NULL;
}

static bool nothing_is_left(void)
{
    return rs_engines()[0] == NULL && rs_engine_best(&xts) == NULL && rs_engine_by_name("openssl") == NULL;
}

static void every_engine_of_this_machine_passes(void **state)
{
    (void)state;
    in_child(NULL, all_pass);
    in_child("nonesuch", all_pass);
    in_child("openss", all_pass);
}

static void a_pair_that_fails_takes_its_engine_out(void **state)
{
    (void)state;
    in_child("openssl:xts-gcm", openssl_is_out);
    in_child("nonesuch,openssl:xts-gcm", openssl_is_out);
}

static void a_published_vector_that_fails_is_named(void **state)
{
    (void)state;
    in_child("openssl", base_vector_names_itself);
    in_child("openssl:plain-xts", base_vector_names_itself);
}

static void the_next_best_takes_over(void **state)
{
    (void)state;
    in_child("vaes-avx512,vaes-avx2:xts-xts,vaes-aesni", vaes_is_out);
}

static void with_all_out_nothing_is_used(void **state)
{
    (void)state;
    in_child("vaes-avx512,vaes-avx2,vaes-aesni,ipsec_mb,openssl", nothing_is_left);
}

static void unknown_names_say_so(void **state)
{
    (void)state;
    assert_string_equal(rs_engine_fault("nonesuch"), "unknown engine");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_engine_of_this_machine_passes),
        cmocka_unit_test(a_pair_that_fails_takes_its_engine_out),
        cmocka_unit_test(a_published_vector_that_fails_is_named),
        cmocka_unit_test(the_next_best_takes_over),
        cmocka_unit_test(with_all_out_nothing_is_used),
        cmocka_unit_test(unknown_names_say_so),
    };
    unsetenv("RESEAL_SELFTEST_FAIL");
    unsetenv("RESEAL_ENGINE");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
