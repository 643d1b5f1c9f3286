/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/task.h"

/* A file of its own, so that a test can have other kinds. */
const struct rs_task_kind *const rs_task_kinds[] = {
    NULL,
};
