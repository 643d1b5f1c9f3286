/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TRUSTED_DAEMON_H
#define RS_TRUSTED_DAEMON_H

/*
 * What reseal-attestd and reseal-keyproviderd have in common: a JSON file that
 * configures them, a state folder, a TLS identity in it, what they publish, and
 * a listening loop in a sandbox.
 */

#include "providers/key/store.h"
#include "providers/key/wire/server.h"

struct rs_daemon {
    const char *name; /* of the program */
    json_t *config;
    struct rs_store *store;
    char *cert;      /* PEM; key memory, as all of libcrypto's */
    const char *key; /* PEM; in `secrets` */
    struct rs_secrets secrets;
    struct rs_wire_identity id;
    char address[RS_WIRE_HOST_MAX + 8]; /* that others reach it at */
    int listener;
    struct rs_wire_server *server;
};

/* One line to stderr; what others wrote must have been made printable. */
__attribute__((format(printf, 2, 3))) void rs_daemon_log(const struct rs_daemon *d, const char *format, ...);
__attribute__((format(printf, 2, 3))) RS_NORETURN void rs_daemon_die(const struct rs_daemon *d,
                                                                     const char *format, ...);

/*
 * Options (--config FILE, --publish, --help, --version), key memory, configuration, state folder and
 * identity; ends the program for what is wrong, and after --help and --version. True: only what is published
 * is wanted.
 */
bool rs_daemon_start(struct rs_daemon *d, const char *name, const char *help, int argc, char **argv);

/* early.c: whether key memory is there, and libcrypto in it. 0, RESEAL_E.... */
RS_MUST_CHECK int rs_daemon_key_memory(void);

/* A text of the configuration: ends the program where it is missing and `otherwise` is NULL. */
const char *rs_daemon_text(const struct rs_daemon *d, const char *name, const char *otherwise);
/* A number of the configuration from `least` to `most`. */
int64_t rs_daemon_number(const struct rs_daemon *d, const char *name, int64_t least, int64_t most,
                         int64_t otherwise);

/* A file that the configuration names, at most `max` bytes, with a NUL; in key memory. `secret`: nobody else
 * may read it. NULL: *why has a line. */
char *rs_daemon_file(const char *path, size_t max, bool secret, size_t *len, char *why, size_t why_len);

/* Begins to listen (config "listen"), and says where. */
void rs_daemon_listen(struct rs_daemon *d);

/* Keeps what others need to know of it in the state folder, completed by kind, version, address and TLS key.
 * Takes `published`. */
void rs_daemon_publish(struct rs_daemon *d, json_t *published);
/* Prints it, and ends the program. */
RS_NORETURN void rs_daemon_print(const struct rs_daemon *d);

/* Serves, in a sandbox, until it is ended. `tick` (may be NULL) is called at least each second. */
RS_NORETURN void rs_daemon_serve(struct rs_daemon *d, rs_wire_handle *handle, void (*tick)(void *arg),
                                 void *arg);

/* True when a line of the file "revoked" in the state folder is that host's id. Read each time. */
bool rs_daemon_revoked(const struct rs_daemon *d, const char *host);

#endif
