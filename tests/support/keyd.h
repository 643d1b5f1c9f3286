/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_KEYD_H
#define RS_TESTS_KEYD_H

/*
 * A real reseal-keyd for one test, which plays the supervisor, reseald-work
 * and the clients. Everything that cannot fail in a working test ends the
 * test program when it does.
 */

#include "providers/key/internal.h"

#include <jansson.h>
#include <sys/types.h>

struct keyd {
    pid_t pid;
    int listener; /* stays open over a restart, as reseald keeps it */
    int work;     /* our end of the private pair */
    int supervisor;
    const char *keep_audit; /* MiB; NULL: as it is without */
    char dir[64];           /* scratch folder of the test, too */
    char path[100];         /* of keys.sock */
};

/* `policy`: path of a policy file; NULL: private to this user. */
void keyd_start(struct keyd *k, const char *policy);

/* Starts one on the socket of one that ended by itself. */
void keyd_spawn(struct keyd *k, const char *policy);

/* Ends the running one without ceremony and starts another on the same socket. */
void keyd_restart(struct keyd *k, const char *policy);

/* Ends it by closing its supervisor's end; its exit code is checked. Removes the folder. */
void keyd_stop(struct keyd *k);

/* A connection that said hello. */
int keyd_connect(const struct keyd *k);

/* Connects only. */
int keyd_dial(const struct keyd *k);

/* A descriptor with these bytes, at position 0. */
int text_fd(const void *bytes, size_t len);

/* Requests; the status of the reply. Descriptors stay the caller's. */
int keyd_raw_fd(int sock, int fd, const struct rs_msg_key_use *use, reseal_key *out);
int keyd_raw(int sock, const void *key, size_t len, const struct rs_msg_key_use *use, reseal_key *out);
int keyd_random(int sock, const struct rs_msg_key_use *use, reseal_key *out);
int keyd_luks(int sock, const char *image, const char *pass, uint32_t use, struct rs_msg_luks *out);
int keyd_luks_fds(int sock, int header, int pass, uint32_t use, struct rs_msg_luks *out);
int keyd_format(int sock, const struct rs_msg_luks_format *format, const char *pass, struct rs_msg_luks *out,
                int *header);
int keyd_close(int sock, reseal_key key);

/* What keys a session would get, asked as reseald-work asks for this process. Revocations before the reply
 * are dropped. */
struct rs_msg_session_request session_of(uint32_t src, reseal_key src_key, uint32_t dst, reseal_key dst_key,
                                         uint32_t unit, uint64_t step);
int keyd_session(const struct keyd *k, const struct rs_msg_session_request *request,
                 struct rs_msg_session_keys *out);

/* The next revocation that reseald-work hears; waits at most ten seconds. */
reseal_key keyd_revoked(const struct keyd *k);

/* The text of STATUS or POLICY; freed by the caller. */
char *keyd_text(int sock, uint16_t type);

/* A connection that said hello as another user; root only. */
int keyd_connect_as(const struct keyd *k, uid_t uid);

/* A request by name: the status of the reply. Takes `args` (NULL: none). *reply (NULL: not wanted) and *out,
 * a descriptor or -1, are the caller's. */
int keyd_ask(int sock, const char *method, json_t *args, const int *fds, unsigned nfds, json_t **reply,
             int *out);

/* Runs a program and waits; its exit code. Output goes to /dev/null. Skips the test (77) when it is not
 * installed. */
int run(const char *const *argv);
#define RUN(...) run((const char *const[]){__VA_ARGS__, NULL})

/* A copy of a file's bytes, freed by the caller. */
uint8_t *file_bytes(const char *path, size_t *len);

#endif
