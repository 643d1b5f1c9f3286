/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_NATIVE_PROVIDER_H
#define RS_KEY_NATIVE_PROVIDER_H

/*
 * Closed tasks for the backup of a native provider: they take the password from whoever has it, and parse
 * the files.
 *
 *   export: {"name"}, secret "kdk", descriptor of the password -> the PKCS#12 file as the descriptor
 *   import: descriptors of the file and the password           -> secret "kdk"
 */

#include "providers/key/provider.h"

#define RS_NATIVE_SECRET_LEN 48u /* UUID and key */

extern const struct rs_task_kind rs_task_native_export, rs_task_native_import;

#endif
