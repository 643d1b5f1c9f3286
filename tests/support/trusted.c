/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/trusted.h"

#include "providers/key/trusted/token.h"
#include "providers/key/wire/dial.h"
#include "providers/key/wire/frame.h"
#include "tests/support/cmocka.h"
#include "tests/support/port.h"

#include <fcntl.h>
#include <openssl/rand.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void path_of(const struct trusted *t, const char *name, char out[256])
{
    (void)snprintf(out, 256, "%s/%s", t->folder, name);
}

static void write_json(const struct trusted *t, const char *name, json_t *value)
{
    char path[256];
    path_of(t, name, path);
    assert_non_null(value);
    assert_int_equal(json_dump_file(value, path, JSON_INDENT(2)), 0);
    json_decref(value);
}

/* Its last line: what it publishes is there then, and it listens. */
static bool is_ready(const char *log)
{
    char text[8192];
    FILE *f = fopen(log, "re");
    size_t n = f == NULL ? 0 : fread(text, 1, sizeof(text) - 1, f);
    if (f != NULL) fclose(f);
    text[n] = '\0';
    return strstr(text, ": ready\n") != NULL;
}

static void show(const char *path)
{
    char text[4096];
    FILE *f = fopen(path, "re");
    size_t n = f == NULL ? 0 : fread(text, 1, sizeof(text), f);
    (void)fwrite(text, 1, n, stderr);
    if (f != NULL) fclose(f);
}

/* Its lines go to FOLDER/PROGRAM.log. */
static pid_t start(const struct trusted *t, const char *program, const char *config)
{
    char path[256], log[256], name[512];
    path_of(t, config, path);
    (void)snprintf(log, sizeof(log), "%s/%s.log", t->folder, program);
    (void)snprintf(name, sizeof(name), "%s/bin/%s", getenv("RESEAL_BUILD"), program);
    (void)remove(log); /* of an earlier one */
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
        (void)dup2(fd, 2);
        execl(name, program, "--config", path, NULL);
        _exit(127);
    }
    while (!is_ready(log)) {
        int status;
        if (waitpid(pid, &status, WNOHANG) != 0) {
            show(log);
            fail_msg("%s ended", program);
        }
        poll(NULL, 0, 20);
    }
    return pid;
}

/* It must have lived until now. */
static void stop(const struct trusted *t, const char *program, pid_t *pid)
{
    char log[256];
    int status;
    if (*pid <= 0) return;
    kill(*pid, SIGTERM);
    waitpid(*pid, &status, 0);
    *pid = 0;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM) return;
    (void)snprintf(log, sizeof(log), "%s/%s.log", t->folder, program);
    show(log);
    fail_msg("%s ended by itself: %d", program, status);
}

/* ---- configurations ------------------------------------------------------------------------ */

static json_t *allowed_now(const struct trusted *t)
{
    struct rs_tpm *tpm;
    struct rs_tpm_key ak;
    struct rs_quote q;
    char why[RS_TRUST_WHY], pcr[4], value[65];
    const uint8_t any[32] = {0};
    json_t *out = json_object();
    assert_int_equal(rs_tpm_open(&tpm, t->tpm.where, why), 0);
    assert_int_equal(rs_tpm_make_ak(tpm, &ak, why), 0);
    assert_int_equal(rs_tpm_quote(tpm, &ak, any, TRUSTED_MASK, &q, why), 0);
    rs_tpm_close(tpm);
    for (unsigned i = 0; i < RS_PCRS; i++) {
        if ((TRUSTED_MASK & 1u << i) == 0) continue;
        for (unsigned k = 0; k < 32; k++) (void)snprintf(value + 2 * k, 3, "%02x", q.pcrs.value[i][k]);
        (void)snprintf(pcr, sizeof(pcr), "%u", i);
        (void)json_object_set_new(out, pcr, json_pack("[s]", value));
    }
    return out;
}

static void configure_attestd(struct trusted *t)
{
    char listen[32], state[256], cas[256];
    (void)snprintf(listen, sizeof(listen), "127.0.0.1:%u", t->attest_port);
    path_of(t, "attestd", state);
    path_of(t, "ca.pem", cas);
    write_json(t, "attestd.json",
               json_pack("{s:s, s:s, s:s, s:[s], s:s, s:i, s:{s:s, s:o}}", "listen", listen, "state", state,
                         "issuer", "test", "audiences", TRUSTED_NAME, "ek_cas", cas, "token_s", 60, "policy",
                         "id", "release-1", "pcrs", allowed_now(t)));
}

/* One that the test signs for: it has no address that answers. */
static json_t *foreign_service(const struct trusted *t)
{
    const uint8_t spki[32] = {1};
    return json_pack("{s:s, s:o, s:o}", "address", "127.0.0.1:1", "spki", rs_wire_json(spki, sizeof(spki)),
                     "key", rs_token_publish(t->foreign));
}

static void make_primary_key(const struct trusted *t)
{
    char path[256];
    uint8_t key[32];
    path_of(t, "primary.key", path);
    assert_int_equal(RAND_bytes(key, sizeof(key)), 1);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(rs_write_full(fd, key, sizeof(key)), 0);
    close(fd);
}

void trusted_start_keys(struct trusted *t, json_t *more)
{
    char listen[32], state[256], attestd[256], primary[256];
    (void)snprintf(listen, sizeof(listen), "127.0.0.1:%u", t->keys_port);
    path_of(t, "keyproviderd", state);
    path_of(t, "attestd/published.json", attestd);
    path_of(t, "primary.key", primary);
    json_t *config =
        json_pack("{s:s, s:s, s:s, s:[s, o], s:[{s:s}]}", "listen", listen, "state", state, "name",
                  TRUSTED_NAME, "attestation", attestd, foreign_service(t), "primaries", "file", primary);
    assert_non_null(config);
    if (more != NULL) (void)json_object_update(config, more);
    json_decref(more);
    write_json(t, "keyproviderd.json", config);
    t->keyproviderd = start(t, "reseal-keyproviderd", "keyproviderd.json");
}

void trusted_start_attestd(struct trusted *t)
{
    t->attestd = start(t, "reseal-attestd", "attestd.json");
}

void trusted_stop_attestd(struct trusted *t)
{
    stop(t, "reseal-attestd", &t->attestd);
}
void trusted_stop_keys(struct trusted *t)
{
    stop(t, "reseal-keyproviderd", &t->keyproviderd);
}

void trusted_start(struct trusted *t)
{
    *t = (struct trusted){.attestd = 0};
    (void)snprintf(t->folder, sizeof(t->folder), "/tmp/reseal-trust-XXXXXX");
    assert_non_null(mkdtemp(t->folder));
    swtpm_start(&t->tpm, t->folder, "host", "ca");
    t->attest_port = free_port();
    t->keys_port = free_port();
    t->foreign = rs_token_make_key();
    make_primary_key(t);
    configure_attestd(t);
    trusted_start_attestd(t);
    trusted_start_keys(t, NULL);
}

void trusted_stop(struct trusted *t)
{
    trusted_stop_attestd(t);
    trusted_stop_keys(t);
    swtpm_stop(&t->tpm);
    EVP_PKEY_free(t->foreign);
    pid_t pid = fork();
    if (pid == 0) {
        execlp("rm", "rm", "-rf", t->folder, NULL);
        _exit(127);
    }
    waitpid(pid, NULL, 0);
}

json_t *trusted_published(const struct trusted *t)
{
    char path[256];
    path_of(t, "keyproviderd/published.json", path);
    json_t *out = json_load_file(path, 0, NULL);
    assert_non_null(out);
    json_t *attest = json_object_get(out, "attest");
    (void)json_array_remove(attest, 1); /* the one that the test plays */
    (void)json_object_set_new(out, "tpm", json_string(t->tpm.where));
    return out;
}
