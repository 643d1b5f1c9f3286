/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/task.h"

#include "providers/key/envelope-tasks.h"
#include "providers/key/hosts.h"
#include "providers/key/luks-tasks.h"
#include "providers/key/native/provider.h"
#include "providers/key/standard/provider.h"
#include "providers/key/trusted/provider.h"
#include "providers/key/trusted/seal.h"
#include "providers/key/vm-home-tasks.h"
#include "providers/key/vm-home.h"
#include "providers/key/webhook.h"

/* A file of its own, so that a test can have other kinds. */
const struct rs_task_kind *const rs_task_kinds[] = {
    &rs_task_file_seal,
    &rs_task_file_open,
    &rs_task_file_rewrap,
    &rs_task_file_describe,
    &rs_task_luks_read,
    &rs_task_luks_open,
    &rs_task_luks_make,
    &rs_task_luks_rewrap,
    &rs_task_luks_adopt,
    &rs_task_luks_release,
    &rs_task_luks_tell,
    &rs_task_home_lock,
    &rs_task_home_read,
    &rs_task_home_open,
    &rs_task_home_phrase,
    &rs_task_home_seal,
    &rs_task_home_rewrap,
    &rs_task_secrets,
    &rs_task_native_export,
    &rs_task_native_import,
    &rs_task_kmip,
    &rs_task_certificates,
    &rs_task_webhook,
    &rs_task_host,
    &rs_task_webhook_check,
    &rs_task_trusted,
    &rs_task_tpm,
    NULL,
};
