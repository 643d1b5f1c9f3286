/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_ENVELOPE_TASKS_H
#define RS_KEY_ENVELOPE_TASKS_H

/*
 * What is done to an envelope in a child of reseal-keyd. Descriptors: the file to read, the file to
 * write, a descriptor that the pass phrase is read from. "keyInfo" of ours is
 *
 *   reseal:host/ID   a key of this host (host-key.h)
 *   reseal:bundle    the file key of a VM's bundle (vm-home.h)
 *   reseal:phrase    a pass phrase
 *
 * Secrets: the keys of the host, each under its ID; or "kek", which opens the lock in args["lock"] of a
 * bundle, and "to_kek" for args["to_lock"].
 */

#include "providers/key/task.h"

#define RS_KEYINFO_HOST   "reseal:host/"
#define RS_KEYINFO_BUNDLE "reseal:bundle"
#define RS_KEYINFO_PHRASE "reseal:phrase"

/* Attributes of the one who seals: letters, digits, '.', '-', '_'; not "vmware." nor "reseal.". */
#define RS_FILE_ATTRIBUTES 20u
RS_MUST_CHECK bool rs_file_attribute_ok(const char *name);

/* args {"keyInfo", "lock", "attributes": {...}, "aad", "max": bytes} -> {"bytes", "cut": true: there was
 * more} */
extern const struct rs_task_kind rs_task_file_seal;
/* args {"key": "host", "bundle" or "phrase", "lock", "aad"} -> {"bytes"} */
extern const struct rs_task_kind rs_task_file_open;
/* args {"key": "host" or "bundle", "to": "phrase" or "bundle", "lock", "to_lock", "aad"} -> {"bytes"}: the
 * same text under another key */
extern const struct rs_task_kind rs_task_file_rewrap;
/* -> {"keyInfo", "key": "host", "bundle", "phrase" or "other", "cipher", "size": of the file, "attributes"}
 */
extern const struct rs_task_kind rs_task_file_describe;

#endif
