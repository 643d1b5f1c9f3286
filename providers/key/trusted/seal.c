/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/trusted/seal.h"

#include "offload/base/keymem.h"
#include "providers/key/trusted/provider.h"
#include "providers/key/trusted/tpm.h"
#include "providers/key/wire/frame.h"
#include "reseal/reseal.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define HOST_KEY "host-key"

/* ---- in the child ------------------------------------------------------------------------ */

static int seal(struct rs_task *t, struct rs_tpm *tpm, uint32_t mask)
{
    const struct rs_secret *key = rs_secrets_find(t->secrets, HOST_KEY);
    struct rs_tpm_key sealed;
    char why[RS_TRUST_WHY] = "";
    if (key == NULL) return RESEAL_EINVAL;
    int err = rs_tpm_seal(tpm, mask, key->bytes, key->len, &sealed, why);
    if (err != 0) return rs_task_fail(t, err, "%s", why);
    bool ok =
        json_object_set_new(t->result, "public", rs_wire_json(sealed.pub.bytes, sealed.pub.len)) == 0 &&
        json_object_set_new(t->result, "private", rs_wire_json(sealed.priv.bytes, sealed.priv.len)) == 0;
    return ok ? 0 : RESEAL_ENOMEM;
}

static bool take_blob(const json_t *o, const char *name, struct rs_tpm_blob *out)
{
    int64_t n = rs_wire_member(o, name, out->bytes, sizeof(out->bytes));
    out->len = n > 0 ? (uint16_t)n : 0;
    return n > 0;
}

static int unseal(struct rs_task *t, struct rs_tpm *tpm, uint32_t mask)
{
    struct rs_tpm_key sealed;
    char why[RS_TRUST_WHY] = "";
    size_t len = 0;
    RS_KEYMEM uint8_t *key = rs_keymem_alloc(RS_TPM_SEAL_MAX);
    if (key == NULL) return RESEAL_ENOMEM;
    if (!take_blob(t->args, "public", &sealed.pub) || !take_blob(t->args, "private", &sealed.priv))
        return rs_task_fail(t, RESEAL_EFORMAT, "what the TPM sealed is damaged");
    int err = rs_tpm_unseal(tpm, mask, &sealed, key, RS_TPM_SEAL_MAX, &len, why);
    if (err != 0) return rs_task_fail(t, err, "%s", why);
    return rs_secrets_put(&t->yields, HOST_KEY, key, len);
}

static int run(struct rs_task *t)
{
    const char *op = json_string_value(json_object_get(t->args, "op"));
    const char *where = json_string_value(json_object_get(t->args, "tpm"));
    json_int_t mask = json_integer_value(json_object_get(t->args, "pcrs"));
    struct rs_tpm *tpm;
    char why[RS_TRUST_WHY] = "";
    if (op == NULL || where == NULL || mask <= 0 || mask >= INT64_C(1) << RS_PCRS) return RESEAL_EINVAL;
    int err = rs_tpm_open(&tpm, where, why);
    if (err != 0) return rs_task_fail(t, err, "%s", why);
    err = strcmp(op, "seal") == 0 ? seal(t, tpm, (uint32_t)mask) : unseal(t, tpm, (uint32_t)mask);
    rs_tpm_close(tpm);
    return err;
}

const struct rs_task_kind rs_task_tpm = {
    .name = "tpm", .place = RS_TASK_NETWORK, .deadline_s = 60, .run = run};

/* ---- in reseal-keyd ------------------------------------------------------------------------ */

/* Where it is; NULL: there is none, or it is not wanted. */
static const char *tpm_of_machine(void)
{
    static const char device[] = "device:";
    const char *where = secure_getenv("RESEAL_TPM");
    if (where == NULL || *where == '\0') where = RS_TRUSTED_TPM;
    if (strcmp(where, "none") == 0) return NULL;
    if (strncmp(where, device, sizeof(device) - 1) == 0 &&
        access(where + sizeof(device) - 1, R_OK | W_OK) != 0)
        return NULL;
    return where;
}

static int ask(struct rs_keyd *d, json_t *args, const struct rs_secrets *secrets, struct rs_task_own *own)
{
    int err = args == NULL ? RESEAL_ENOMEM : rs_task_wait(d, &rs_task_tpm, args, secrets, own);
    json_decref(args);
    return err;
}

static int keep(void *arg, const uint8_t key[RS_HOST_KEY_LEN], json_t **sealed, char *why, size_t why_len)
{
    const char *where = tpm_of_machine(), *list = secure_getenv("RESEAL_TPM_PCRS");
    struct rs_secrets secrets = {.n = 0};
    struct rs_task_own own;
    if (where == NULL) return RESEAL_ENOSUPPORT;
    uint32_t mask = rs_pcr_mask(list != NULL ? list : RS_TPM_PCRS);
    if (mask == 0) {
        (void)snprintf(why, why_len, "RESEAL_TPM_PCRS: wants numbers from 0 to 23, \"7\" or \"0,7\"");
        return RESEAL_EINVAL;
    }
    if (rs_secrets_put(&secrets, HOST_KEY, key, RS_HOST_KEY_LEN) != 0) return RESEAL_ENOMEM;
    json_t *args = json_pack("{s:s, s:s, s:I}", "op", "seal", "tpm", where, "pcrs", (json_int_t)mask);
    int err = ask(arg, args, &secrets, &own);
    rs_secrets_free(&secrets);
    if (err == 0) {
        *sealed = json_deep_copy(own.answer.result);
        if (*sealed == NULL || json_object_set_new(*sealed, "pcrs", json_integer(mask)) != 0)
            err = RESEAL_ENOMEM;
    } else {
        (void)fprintf(stderr, "reseal-keyd: the host key is kept in a file: %s\n",
                      own.answer.why != NULL ? own.answer.why : reseal_strerror(err));
        err = RESEAL_ENOSUPPORT;
    }
    rs_task_own_free(&own);
    return err;
}

static int give_back(void *arg, const json_t *sealed, uint8_t key[RS_HOST_KEY_LEN], char *why, size_t why_len)
{
    const char *where = tpm_of_machine();
    struct rs_task_own own;
    if (where == NULL) {
        (void)snprintf(why, why_len, "the host key is sealed by a TPM, which is not there (RESEAL_TPM)");
        return RESEAL_ENOSERVICE;
    }
    json_t *args = json_deep_copy(sealed);
    if (args != NULL) {
        (void)json_object_set_new(args, "op", json_string("unseal"));
        (void)json_object_set_new(args, "tpm", json_string(where));
    }
    int err = ask(arg, args, NULL, &own);
    const struct rs_secret *s = err == 0 ? rs_secrets_find(own.answer.secrets, HOST_KEY) : NULL;
    if (s != NULL && s->len == RS_HOST_KEY_LEN)
        memcpy(key, s->bytes, RS_HOST_KEY_LEN);
    else
        (void)snprintf(why, why_len, "the host key: %s; boot what was booted when it was sealed",
                       own.answer.why != NULL ? own.answer.why : reseal_strerror(err));
    rs_task_own_free(&own);
    return err != 0 ? err : s != NULL ? 0 : RESEAL_EFORMAT;
}

struct rs_store_keeper rs_tpm_keeper(struct rs_keyd *d)
{
    return (struct rs_store_keeper){.name = "tpm", .arg = d, .seal = keep, .unseal = give_back};
}
