/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_CMOCKA_H
#define RS_TESTS_CMOCKA_H

/* cmocka.h and what it needs before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
