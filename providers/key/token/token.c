/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcryptsetup-token-reseal.so: by it `cryptsetup open` and systemd-cryptsetup open a LUKS2 image whose key
 * slot belongs to a key provider. It asks the key service for the slot's pass phrase (disk.phrase), which
 * needs Cryptographer.Access and the grant plain-out, and is audited. It lives in other people's processes:
 * no thread, no signal handler, nothing printed but by libcryptsetup's own log.
 */
#include "offload/client/keyservice.h"
#include "providers/key/luks-token.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define EXPORT     __attribute__((visibility("default")))
#define PHRASE_MAX 512u /* bytes; ours have 44 */
#define WAIT_MS    5000u

/* What <libcryptsetup.h> says of these, by its names for them. */
EXPORT const char *cryptsetup_token_version(void);
EXPORT int cryptsetup_token_open(struct crypt_device *cd, int token, char **buffer, size_t *buffer_len,
                                 void *usrptr);
EXPORT void cryptsetup_token_buffer_free(void *buffer, size_t buffer_len);
EXPORT int cryptsetup_token_validate(struct crypt_device *cd, const char *json);
EXPORT void cryptsetup_token_dump(struct crypt_device *cd, const char *json);

__attribute__((format(printf, 3, 4))) static int tell(struct crypt_device *cd, int err, const char *format,
                                                      ...)
{
    char line[RS_KEYSERVICE_WHY + 64];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    crypt_log(cd, CRYPT_LOG_ERROR, line);
    return err;
}

/* As libcryptsetup and those who call it tell them apart. */
static int errno_of(int code)
{
    if (code == RESEAL_ENOSERVICE || code == RESEAL_ETIMEDOUT)
        return -EAGAIN; /* what opens it is not there */
    if (code == RESEAL_EPERM || code == RESEAL_EPAIR || code == RESEAL_EPASS) return -EPERM;
    if (code == RESEAL_ENOKEY) return -ENOENT;
    return code == RESEAL_ENOMEM ? -ENOMEM : -EINVAL;
}

/* Asks the service to write the pass phrase into a pipe. */
static int ask(struct crypt_device *cd, int header, int pipe_end)
{
    const struct reseal_options options = {.size = sizeof(options), .reconnect_ms = WAIT_MS};
    const int fds[2] = {header, pipe_end};
    char why[RS_KEYSERVICE_WHY];
    reseal *service = NULL;
    int r = reseal_open(&service, &options);
    if (r != 0) return tell(cd, errno_of(r), "reseal: no key from the key service: %s\n", reseal_strerror(r));
    r = rs_keyservice_call(service, "disk.phrase", NULL, fds, 2, NULL, NULL, why, sizeof(why));
    reseal_close(service);
    return r == 0 ? 0 : tell(cd, errno_of(r), "reseal: no key from the key service: %s\n", why);
}

/* What was written; its writers are gone, so this waits for nobody. */
static int take(int pipe_end, char **buffer, size_t *len)
{
    char *phrase = malloc(PHRASE_MAX);
    size_t n = 0;
    if (phrase == NULL) return -ENOMEM;
    for (;;) {
        ssize_t got = n < PHRASE_MAX ? read(pipe_end, phrase + n, PHRASE_MAX - n) : -1;
        if (got == 0 && n > 0) break;
        if (got > 0) {
            n += (size_t)got;
            continue;
        }
        if (got < 0 && n < PHRASE_MAX && errno == EINTR) continue;
        cryptsetup_token_buffer_free(phrase, n);
        return -EINVAL;
    }
    *buffer = phrase;
    *len = n;
    return 0;
}

int cryptsetup_token_open(struct crypt_device *cd, int token, char **buffer, size_t *buffer_len, void *usrptr)
{
    (void)token, (void)usrptr; /* the service finds the token itself */
    int ends[2];
    const char *path = crypt_get_metadata_device_name(cd);
    if (path == NULL) path = crypt_get_device_name(cd);
    RS_CLOSE int header = path != NULL ? open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY) : -1;
    if (header < 0) return tell(cd, -EINVAL, "reseal: the header cannot be opened: %s\n", strerror(errno));
    if (pipe2(ends, O_CLOEXEC) != 0) return tell(cd, -EMFILE, "reseal: there is no room for a pipe\n");
    int r = ask(cd, header, ends[1]);
    close(ends[1]);
    if (r == 0) r = take(ends[0], buffer, buffer_len);
    close(ends[0]);
    return r;
}

void cryptsetup_token_buffer_free(void *buffer, size_t buffer_len)
{
    if (buffer == NULL) return;
    rs_wipe(buffer, buffer_len);
    free(buffer);
}

int cryptsetup_token_validate(struct crypt_device *cd, const char *json)
{
    struct rs_luks_token token;
    char why[160];
    if (rs_luks_token_parse(json, &token, why, sizeof(why)) == 0) return 0;
    return tell(cd, -EINVAL, "reseal: %s\n", why);
}

void cryptsetup_token_dump(struct crypt_device *cd, const char *json)
{
    struct rs_luks_token token;
    char why[160], line[RS_LUKS_PROVIDER_MAX + RS_LUKS_KEY_ID_MAX + 64];
    if (rs_luks_token_parse(json, &token, why, sizeof(why)) != 0) return;
    (void)snprintf(line, sizeof(line), "\tprovider:   %s\n\tkey:        %s\n", token.provider, token.key);
    crypt_log(cd, CRYPT_LOG_NORMAL, line);
}

const char *cryptsetup_token_version(void)
{
    return "reseal " RESEAL_VERSION;
}
