/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locked texts of VM homes, and tokens of LUKS headers, as strangers may write them: through the tasks that
 * read and open them. The first byte says what the rest is: a key safe, a bundle, encryption.data, what opens
 * in a key safe or bundle, a token.
 */
#include "offload/base/keymem.h"
#include "providers/key/luks-token.h"
#include "providers/key/vm-home-tasks.h"
#include "providers/key/vm-home.h"
#include "reseal/reseal.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t kek[RS_HOME_KEK_LEN] = {1, 2, 3};
static struct rs_secrets secrets;

static void start(void)
{
    if (rs_keymem_init(0) != 0 || rs_secrets_put(&secrets, "kek", kek, sizeof(kek)) != 0 ||
        rs_secrets_put(&secrets, "new", kek, sizeof(kek)) != 0)
        abort();
}

/* Runs a task; each failure has its line. The result is the caller's. */
static int run(const struct rs_task_kind *kind, json_t *args, const uint8_t *in, size_t len, json_t **result)
{
    struct rs_task t = {.args = args, .secrets = &secrets, .out_fd = -1, .result = json_object()};
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (args == NULL || fd < 0 || (size_t)pwrite(fd, in, len, 0) != len) abort();
    t.fds[0] = t.fds[1] = fd;
    t.nfds = 2;
    int r = kind->run(&t);
    if (r > 0 || (r != 0 && r != RESEAL_EPASS && t.why[0] == '\0')) abort();
    rs_cleanup_close(&t.out_fd);
    close(fd);
    rs_secrets_free(&t.yields);
    if (result != NULL && r == 0)
        *result = t.result;
    else
        json_decref(t.result);
    return r;
}

static void texts(const char *safe, const char *bundle, bool phrase)
{
    json_t *locks, *args = json_pack("{s:s, s:s, s:b}", "keySafe", safe, "bundle", bundle, "phrase", phrase);
    if (args == NULL) return; /* no UTF-8: it would not have come as a request */
    if (run(&rs_task_home_read, args, NULL, 0, &locks) == 0) {
        /* A pass phrase's rounds may take seconds, which is what tasks have deadlines for. */
        if (!phrase) {
            (void)run(&rs_task_home_open, locks, (const uint8_t *)"AAAA", 4, NULL);
            (void)run(&rs_task_home_rewrap, locks, NULL, 0, NULL);
        }
        json_decref(locks);
    }
    json_decref(args);
}

/* A lock of our own on foreign text. */
static json_t *lock_on(const uint8_t *text, size_t len)
{
    struct rs_locked_key locker;
    static uint8_t blob[4096 + RS_LOCKED_OVERHEAD];
    static char data[sizeof(blob) * 2];
    size_t n;
    rs_home_locker_of_kek(kek, &locker);
    if (rs_locked_seal(&locker, RS_LOCKED_HMAC_SHA256, text, RS_MIN(len, (size_t)4096), blob, &n) != 0 ||
        rs_base64_encode(blob, n, data, sizeof(data)) != 0)
        abort();
    return json_pack("{s:s, s:s}", "mac", "HMAC-SHA-256", "data", data);
}

static void locked(const uint8_t *text, size_t len)
{
    json_t *args = json_pack("{s:o, s:o}", "safe", lock_on(text, len), "bundle", lock_on(text, len));
    (void)run(&rs_task_home_open, args, text, len, NULL);
    (void)run(&rs_task_home_rewrap, args, NULL, 0, NULL);
    json_decref(args);
}

static void token(const char *text)
{
    struct rs_luks_token one, two;
    char why[160] = "";
    if (rs_luks_token_parse(text, &one, why, sizeof(why)) != 0) {
        if (why[0] == '\0') abort();
        return;
    }
    char *again = rs_luks_token_text(&one);
    if (again == NULL || rs_luks_token_parse(again, &two, why, sizeof(why)) != 0 ||
        one.keyslot != two.keyslot || strcmp(one.key, two.key) != 0 ||
        strcmp(one.provider, two.provider) != 0)
        abort();
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (secrets.n == 0) start();
    if (size == 0) return 0;
    char *text = malloc(size);
    if (text == NULL) abort();
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    switch (data[0] % 5) {
    case 0:
        texts(text, "", false);
        break;
    case 1:
        texts("", text, false);
        break;
    case 2:
        texts(text, "", true);
        break;
    case 3:
        locked(data + 1, size - 1);
        break;
    default:
        token(text);
        break;
    }
    free(text);
    return 0;
}
