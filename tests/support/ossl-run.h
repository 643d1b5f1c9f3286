/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_OSSL_RUN_H
#define RS_TESTS_OSSL_RUN_H

#include "tests/support/cmocka.h"
#include "tests/support/ossl.h"

/* The two providers, open while the tests of a group run. */
extern struct ossl ossl_here;

/*
 * Runs a group of tests once for each kernel set that this build and CPU have,
 * each in a process of its own, as a process chooses its kernels once; says
 * aloud which are missing. Returns what main() shall. RESEAL_OSSL_ENGINE in the
 * environment: that set only.
 */
int ossl_run_tests(const char *name, const struct CMUnitTest *tests, size_t count, bool every_set);

#define ossl_run(tests) ossl_run_tests(#tests, tests, sizeof(tests) / sizeof((tests)[0]), true)

/* The widest kernels and the default provider's only: for what no kernel has a part in. */
#define ossl_run_widest(tests) ossl_run_tests(#tests, tests, sizeof(tests) / sizeof((tests)[0]), false)

#endif
