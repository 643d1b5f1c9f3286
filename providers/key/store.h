/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_STORE_H
#define RS_KEY_STORE_H

/*
 * The state folder of reseal-keyd (reseald --state-dir; by default
 * /var/lib/reseal, or $XDG_STATE_HOME/reseal of a private service): providers,
 * hosts, tenants, events, audit. Objects are named "providers/NAME.json". One is replaced as a
 * whole: written beside it, flushed, renamed, the folder flushed; a crash leaves the old one or the new one.
 *
 * Secrets are sealed: AES-256-GCM under a key derived (HKDF-SHA-256, 256 fresh
 * random bits for each write) from the host key, with the object's name as
 * AAD. The host key is 32 random bytes, sealed by the TPM where there is one,
 * else in the file host.key with mode 0600.
 */

#include "providers/key/secrets.h"

#include <jansson.h>

struct rs_store;

#define RS_STORE_NAME_MAX 160u

#define RS_HOST_KEY_LEN 32u

/*
 * What keeps the host key instead of a file: a TPM. Called from rs_store_open() alone, before reseal-keyd is
 * confined and serves anybody; main.c makes one of rs_task_wait() and a task in RS_TASK_NETWORK, so
 * that what a TPM answers is parsed in a child. `sealed` is a JSON value that only this keeper understands;
 * it is kept in host.key.json. A store that was begun with a file stays with it.
 */
struct rs_store_keeper {
    const char *name; /* "tpm" */
    void *arg;
    /* *sealed is the caller's. RESEAL_ENOSUPPORT: there is none on this machine; else one line in `why`. */
    int (*seal)(void *arg, const uint8_t key[RS_HOST_KEY_LEN], json_t **sealed, char *why, size_t why_len);
    int (*unseal)(void *arg, const json_t *sealed, uint8_t key[RS_HOST_KEY_LEN], char *why, size_t why_len);
};

/* Opens or makes the folder, mode 0700; refuses one that others can write, and a second reseal-keyd on it.
 * `keeper` may be NULL: the host key is in a file. One line in `why`. */
RS_MUST_CHECK int rs_store_open(const char *folder, const struct rs_store_keeper *keeper,
                                struct rs_store **out, char *why, size_t why_len);
void rs_store_close(struct rs_store *s);

/* A descriptor of the folder, the store's. */
int rs_store_folder(const struct rs_store *s);

/* "file", or the keeper's name: what keeps the host key. */
const char *rs_store_seal(const struct rs_store *s);

/* The place of a value in a list, such as those in the store's objects; as many as there are: it has none. */
size_t rs_json_index(const json_t *list, const json_t *value);
static inline bool rs_json_has(const json_t *list, const json_t *value)
{
    return rs_json_index(list, value) < json_array_size(list);
}
RS_MUST_CHECK int rs_store_put_json(struct rs_store *s, const char *name, const json_t *value);
/* RESEAL_ENOKEY: no such object; RESEAL_EFORMAT. *out is the caller's. */
RS_MUST_CHECK int rs_store_get_json(struct rs_store *s, const char *name, json_t **out);

RS_MUST_CHECK int rs_store_put_secrets(struct rs_store *s, const char *name,
                                       const struct rs_secrets *secrets);
/* RESEAL_ENOKEY; RESEAL_EFORMAT; RESEAL_EAUTH: changed, moved from another name, or of another host. */
RS_MUST_CHECK int rs_store_get_secrets(struct rs_store *s, const char *name, struct rs_secrets *out);

/* One that is not there is no error. */
RS_MUST_CHECK int rs_store_remove(struct rs_store *s, const char *name);

/* Gives an object another name in its folder; one that has it is replaced. Sealed ones do not open under
 * another name. */
RS_MUST_CHECK int rs_store_rename(struct rs_store *s, const char *from, const char *to);

/* Calls `each` with the full name of every object of a folder ("providers"), sorted, until it returns not 0.
 */
int rs_store_each(struct rs_store *s, const char *folder, int (*each)(const char *name, void *arg),
                  void *arg);

/* Appends one line to a file of lines ("events.jsonl"), whole or not at all; a line feed is added where it
 * has none. It survives the end of the process, but is not flushed to the disk. */
RS_MUST_CHECK int rs_store_append(struct rs_store *s, const char *name, const char *line, size_t len);

/* The same in two steps, for who appends often: opens the file, *end is where its last whole line ends, and
 * what a crash left behind that is taken away; *fd is the caller's. Then adds whole lines there, all or none.
 */
RS_MUST_CHECK int rs_store_lines(struct rs_store *s, const char *name, int *fd, uint64_t *end);
RS_MUST_CHECK int rs_store_add_lines(int fd, uint64_t end, const char *text, size_t len);

#endif
