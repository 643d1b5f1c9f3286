/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/base/keymem.h"
#include "providers/key/native/native.h"
#include "providers/key/native/provider.h"
#include "providers/key/source.h"
#include "reseal/reseal.h"

#include <openssl/crypto.h>
#include <sys/mman.h>
#include <unistd.h>

#define PASSWORD_MAX 1024u

/* A password to its end; what was typed or a file's only line has no end of line. Key memory, NUL-ended. */
static int read_password(struct rs_task *t, int fd, char **out)
{
    struct rs_secret_text text;
    int r = rs_secret_read(fd, PASSWORD_MAX, &text);
    if (r == RESEAL_EINVAL)
        return rs_task_fail(t, RESEAL_EPASS, "the password is longer than %u bytes", PASSWORD_MAX);
    if (r != 0) return r;
    size_t len = text.len;
    if (len > 0 && text.bytes[len - 1] == '\n') len--;
    if (len > 0 && text.bytes[len - 1] == '\r') len--;
    char *password = rs_keymem_alloc(len + 1);
    if (password != NULL) memcpy(password, text.bytes, len);
    bool whole = memchr(text.bytes, '\0', len) == NULL;
    rs_secret_free(&text);
    if (password == NULL) return RESEAL_ENOMEM;
    if (!whole) {
        rs_keymem_free(password);
        return rs_task_fail(t, RESEAL_EPASS, "the password holds a zero byte: it must be a text");
    }
    *out = password;
    return 0;
}

static int hand_over(struct rs_task *t, const uint8_t *der, size_t len)
{
    int fd = memfd_create("backup", MFD_CLOEXEC);
    if (fd < 0) return RESEAL_EIO;
    if (rs_pwrite_full(fd, der, len, 0) != 0) {
        close(fd);
        return RESEAL_EIO;
    }
    t->out_fd = fd;
    return 0;
}

static int run_export(struct rs_task *t)
{
    const char *name = json_string_value(json_object_get(t->args, "name"));
    const struct rs_secret *kdk = rs_secrets_find(t->secrets, "kdk");
    RS_KEYMEM char *password = NULL;
    uint8_t *der = NULL;
    size_t len = 0;
    if (name == NULL || kdk == NULL || kdk->len != sizeof(struct rs_native_kdk) || t->nfds != 1)
        return RESEAL_EINVAL;
    int r = read_password(t, t->fds[0], &password);
    if (r != 0) return r;
    r = rs_native_backup((const struct rs_native_kdk *)kdk->bytes, name, password, &der, &len);
    if (r == RESEAL_EPASS)
        return rs_task_fail(
            t, r, "the password of a backup has at least %u characters, %u of them different: choose another",
            RS_NATIVE_PASSWORD_MIN, RS_NATIVE_PASSWORD_UNLIKE);
    if (r == 0) r = hand_over(t, der, len);
    OPENSSL_free(der);
    return r;
}

static int run_import(struct rs_task *t)
{
    RS_KEYMEM char *password = NULL;
    RS_KEYMEM struct rs_native_kdk *kdk = rs_keymem_alloc(sizeof(*kdk));
    struct rs_secret_text file;
    if (t->nfds != 2) return RESEAL_EINVAL;
    if (kdk == NULL) return RESEAL_ENOMEM;
    int r = rs_secret_read(t->fds[0], RS_NATIVE_BACKUP_MAX, &file);
    if (r == RESEAL_EINVAL) r = RESEAL_EFORMAT;
    if (r == 0) {
        r = read_password(t, t->fds[1], &password);
        if (r == 0) r = rs_native_restore(file.bytes, file.len, password, kdk);
        rs_secret_free(&file);
    }
    if (r == RESEAL_EPASS && t->why[0] == '\0')
        return rs_task_fail(t, r, "the password is not that of the backup");
    if (r == RESEAL_EFORMAT)
        return rs_task_fail(t, r,
                            "this is no backup of a native provider: 'reseal provider export' makes one");
    return r != 0 ? r : rs_secrets_put(&t->yields, "kdk", kdk, sizeof(*kdk));
}

const struct rs_task_kind rs_task_native_export = {
    .name = "native-export", .place = RS_TASK_CLOSED, .run = run_export};
const struct rs_task_kind rs_task_native_import = {
    .name = "native-import", .place = RS_TASK_CLOSED, .run = run_import};
