/* SPDX-License-Identifier: Apache-2.0 */
/* reseal-attestd: the attestation service. */
#include "offload/base/keymem.h"
#include "providers/key/trusted/attest-service.h"
#include "providers/key/trusted/tpm.h"
#include "reseal/reseal.h"

#include <errno.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define PROGRAM   "reseal-attestd"
#define SIGNING   "token-key"
#define CAS_MAX   (1u << 20)
#define TOKEN_S   600
#define TOKEN_MAX 3600

static const char help[] =
    "usage: " PROGRAM " --config FILE [--publish]\n"
    "Attests hosts by their TPM and gives them tokens for a key provider service.\n"
    "\n"
    "  --config FILE  what it trusts and allows, as JSON: see " PROGRAM "(8)\n"
    "  --publish      print what key provider services and hosts need to know of it\n"
    "  --help, --version\n"
    "\n"
    "exit codes: 0 stopped by a signal, 1 the configuration or state folder is wrong, 2 usage\n"
    "example: " PROGRAM " --config /etc/reseal/attestd.json\n";

static EVP_PKEY *key_of(const char *pem)
{
    BIO *bio = pem == NULL ? NULL : BIO_new_mem_buf(pem, -1);
    EVP_PKEY *key = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    BIO_free(bio);
    return key;
}

static bool keep_key(struct rs_daemon *d, EVP_PKEY *key)
{
    struct rs_secrets s = {.n = 0};
    BIO *bio = BIO_new(BIO_s_mem());
    char *text;
    bool ok = bio != NULL && PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1;
    long len = ok ? BIO_get_mem_data(bio, &text) : 0;
    ok = len > 0 && rs_secrets_put(&s, "key", text, (size_t)len) == 0 &&
         rs_store_put_secrets(d->store, SIGNING, &s) == 0;
    rs_secrets_free(&s);
    BIO_free(bio);
    return ok;
}

/* Records of hosts: made here, since the sandbox makes files only. */
static void make_folder(const struct rs_daemon *d)
{
    if (mkdirat(rs_store_folder(d->store), RS_ATTEST_HOSTS, 0700) != 0 && errno != EEXIST)
        rs_daemon_die(d, "the folder of hosts cannot be made: %s", strerror(errno));
}

/* The key that signs tokens: made once. */
static void signing_key(struct rs_attest *a)
{
    struct rs_daemon *d = a->daemon;
    struct rs_secrets s = {.n = 0};
    int err = rs_store_get_secrets(d->store, SIGNING, &s);
    if (err == 0) {
        a->signing_key = key_of(rs_secrets_text(&s, "key"));
    } else if (err == RESEAL_ENOKEY) {
        a->signing_key = rs_token_make_key();
        if (a->signing_key == NULL || !keep_key(d, a->signing_key))
            rs_daemon_die(d, "the key for tokens cannot be made or written");
    }
    rs_secrets_free(&s);
    if (a->signing_key == NULL)
        rs_daemon_die(d, "the key for tokens in the state folder cannot be read: %s", reseal_strerror(err));
}

static json_t *published(const struct rs_attest *a)
{
    return json_pack("{s:s, s:o}", "issuer", a->issuer, "key", rs_token_publish(a->signing_key));
}

static void configure(struct rs_attest *a)
{
    struct rs_daemon *d = a->daemon;
    char why[RS_TRUST_WHY], line[512];
    size_t len;
    a->issuer = rs_daemon_text(d, "issuer", PROGRAM);
    if (strlen(a->issuer) >= 128) rs_daemon_die(d, "configuration: \"issuer\" is too long");
    a->token_s = rs_daemon_number(d, "token_s", 10, TOKEN_MAX, TOKEN_S);
    a->audiences = json_object_get(d->config, "audiences");
    a->ek_allowed = json_object_get(d->config, "ek_allowed");
    if (json_array_size(a->audiences) == 0)
        rs_daemon_die(d, "configuration: \"audiences\" wants the names of key provider services");
    if (rs_attest_policy(json_object_get(d->config, "policy"), &a->policy, why) != 0)
        rs_daemon_die(d, "configuration: %s", why);
    if (json_object_get(d->config, "ek_cas") == NULL && json_array_size(a->ek_allowed) == 0)
        rs_daemon_die(
            d, "configuration: set \"ek_cas\", the CAs of TPM makers, or \"ek_allowed\", a list of TPMs");
    if (json_object_get(d->config, "ek_cas") == NULL) return;
    a->ek_cas = rs_daemon_file(rs_daemon_text(d, "ek_cas", NULL), CAS_MAX, false, &len, line, sizeof(line));
    if (a->ek_cas == NULL) rs_daemon_die(d, "ek_cas: %s", line);
}

int main(int argc, char **argv)
{
    struct rs_daemon d;
    struct rs_attest a = {.daemon = &d};
    bool only_publish = rs_daemon_start(&d, PROGRAM, help, argc, argv);
    configure(&a);
    signing_key(&a);
    if (only_publish) {
        rs_daemon_publish(&d, published(&a));
        rs_daemon_print(&d);
    }
    a.pending = rs_keymem_alloc(RS_ATTEST_PENDING * sizeof(*a.pending));
    if (a.pending == NULL) rs_daemon_die(&d, "out of key memory");
    make_folder(&d);
    rs_daemon_listen(&d);
    rs_daemon_publish(&d, published(&a));
    rs_daemon_serve(&d, rs_attest_handle, NULL, &a);
}
