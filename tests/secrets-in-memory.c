/* SPDX-License-Identifier: Apache-2.0 */
/*
 * While jobs run, root reads the memory of every process, and a core dump of
 * those that hold or handle data: no key, no AES round key or hash key of one,
 * no pass phrase, no plaintext. The client runs in a process of its own, which
 * gets its keys as descriptors and never reads them.
 * With an engine of two passes the plaintext is not looked for: it passes
 * through the worker's private memory.
 */
#include "bench/command.h"
#include "offload/base/bytes.h"
#include "providers/crypto/engine.h"
#include "reseal/reseal.h"
#include "tests/support/needles.h"
#include "tests/support/service.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#define RECORD 65536u
#define UNIT   4096u
#define ROUNDS 4 /* scans */

static void must(bool right, const char *what)
{
    if (right) return;
    fprintf(stderr, "secrets-in-memory: %s failed: %s\n", what, strerror(errno));
    exit(2);
}

static void random_bytes(uint8_t *p, size_t len)
{
    must(getrandom(p, len, 0) == (ssize_t)len, "getrandom");
}

/* ---- what is sealed ----------------------------------------------------------- */

struct material {
    uint8_t luks[64], xts[64], gcm_a[32], gcm_b[32]; /* raw keys */
    uint8_t iv[12], tag[16];
    char pass[65]; /* random: a constant would lie in this program's image, which is the client's too */
    int fd_xts, fd_gcm_a, fd_gcm_b, fd_header, fd_pass, fd_luks_data, fd_gcm_data;
};

static int memfd_of(const void *bytes, size_t len)
{
    int fd = memfd_create("test", 0); /* inherited by the client */
    must(fd >= 0 && rs_pwrite_full(fd, bytes, len, 0) == 0, "memfd");
    return fd;
}

/* Every block of the plaintext is the canary, so that one block that leaks is seen. */
static void seal_data(struct material *m, bool fused)
{
    static uint8_t plain[RECORD], sealed[RECORD];
    uint8_t canary[16], tweak[16];
    int n;
    random_bytes(canary, sizeof(canary));
    canary[0] |= 1;
    for (size_t i = 0; i < RECORD; i += 16) memcpy(plain + i, canary, 16);
    if (fused) needles_add(canary, "plaintext");
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    must(c != NULL && EVP_EncryptInit_ex(c, EVP_aes_256_xts(), NULL, m->luks, NULL) == 1, "XTS");
    for (size_t at = 0; at < RECORD; at += UNIT) {
        memset(tweak, 0, sizeof(tweak));
        rs_store_le64(tweak, at / 512);
        must(EVP_EncryptInit_ex(c, NULL, NULL, NULL, tweak) == 1 &&
                 EVP_EncryptUpdate(c, sealed + at, &n, plain + at, UNIT) == 1,
             "XTS");
    }
    m->fd_luks_data = memfd_of(sealed, RECORD);
    random_bytes(m->iv, sizeof(m->iv));
    EVP_CIPHER_CTX_reset(c);
    must(EVP_EncryptInit_ex(c, EVP_aes_256_gcm(), NULL, m->gcm_a, m->iv) == 1 &&
             EVP_EncryptUpdate(c, sealed, &n, plain, RECORD) == 1 &&
             EVP_EncryptFinal_ex(c, sealed + n, &n) == 1 &&
             EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, 16, m->tag) == 1,
         "GCM");
    m->fd_gcm_data = memfd_of(sealed, RECORD);
    EVP_CIPHER_CTX_free(c);
    rs_wipe(plain, sizeof(plain));
}

/* A LUKS2 header by cryptsetup, with a volume key that we know. */
static void make_header(const struct service *s, struct material *m)
{
    char image[PATH_MAX], key[PATH_MAX], pass[PATH_MAX];
    struct rs_command_result result;
    snprintf(image, sizeof(image), "%s/image", s->dir);
    snprintf(key, sizeof(key), "%s/key", s->dir);
    snprintf(pass, sizeof(pass), "%s/pass", s->dir);
    RS_CLOSE int i = open(image, O_RDWR | O_CREAT | O_CLOEXEC, 0600),
                 k = open(key, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    RS_CLOSE int p = open(pass, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    must(i >= 0 && k >= 0 && p >= 0 && ftruncate(i, 20 << 20) == 0 &&
             rs_pwrite_full(k, m->luks, 64, 0) == 0 && rs_pwrite_full(p, m->pass, strlen(m->pass), 0) == 0,
         "files");
    const char *const argv[] = {
        "cryptsetup", "luksFormat",        "-q",   "--type",  "luks2",  "--key-size",
        "512",        "--sector-size",     "4096", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations",
        "1000",       "--volume-key-file", key,    image,     pass,     NULL};
    if (rs_command_run(argv, &result) != 0) {
        printf("cryptsetup cannot make a header: %s\n", result.why);
        exit(77);
    }
    m->fd_header = open(image, O_RDONLY); /* both inherited by the client */
    m->fd_pass = open(pass, O_RDONLY);
    must(m->fd_header >= 0 && m->fd_pass >= 0, "header");
    for (unsigned at = 0; at < 64; at += 16) needles_add((const uint8_t *)m->pass + at, "pass phrase");
}

static void make_material(const struct service *s, struct material *m, bool fused)
{
    random_bytes(m->luks, sizeof(m->luks));
    random_bytes(m->xts, sizeof(m->xts));
    random_bytes(m->gcm_a, sizeof(m->gcm_a));
    random_bytes(m->gcm_b, sizeof(m->gcm_b));
    uint8_t pass[32];
    random_bytes(pass, sizeof(pass));
    for (unsigned i = 0; i < sizeof(pass); i++) snprintf(m->pass + 2 * i, 3, "%02x", pass[i]);
    needles_add_key(m->luks, 256, "data key of LUKS");
    needles_add_key(m->luks + 32, 256, "tweak key of LUKS");
    needles_add_key(m->xts, 256, "data key of XTS");
    needles_add_key(m->xts + 32, 256, "tweak key of XTS");
    needles_add_key(m->gcm_a, 256, "key of a GCM source");
    needles_add_key(m->gcm_b, 256, "key of a GCM destination");
    m->fd_xts = memfd_of(m->xts, 64);
    m->fd_gcm_a = memfd_of(m->gcm_a, 32);
    m->fd_gcm_b = memfd_of(m->gcm_b, 32);
    make_header(s, m);
    seal_data(m, fused);
}

/* ---- the client ------------------------------------------------------------------ */

static void client_must(int r, const char *what)
{
    if (r >= 0) return;
    fprintf(stderr, "client: %s: %s\n", what, reseal_strerror(r));
    _exit(3);
}

static reseal_key client_key(reseal *r, int fd, uint32_t cipher)
{
    struct reseal_key_use use = {.size = sizeof(use), .cipher = cipher, .use = 3};
    if (cipher == RESEAL_XTS) use.unit = UNIT, use.step = UNIT / 512;
    reseal_key key;
    client_must(reseal_key_raw(r, fd, &use, &key), "reseal_key_raw");
    return key;
}

static reseal_session *client_session(reseal *r, uint32_t from, reseal_key a, uint32_t to, reseal_key b)
{
    struct reseal_transform t = {.size = sizeof(t), .counter_at = RESEAL_NO_COUNTER};
    t.source = (struct reseal_side){.cipher = from, .unit = UNIT, .step = UNIT / 512, .key = a};
    t.destination = (struct reseal_side){.cipher = to, .unit = UNIT, .step = UNIT / 512, .key = b};
    if (from == RESEAL_GCM) t.source.unit = 0, t.source.step = 0;
    if (to == RESEAL_GCM) t.destination.unit = 0, t.destination.step = 0;
    reseal_session *s;
    client_must(reseal_session_open(r, &t, &s), "reseal_session_open");
    return s;
}

static int number(const char *text)
{
    return (int)strtol(text, NULL, 10);
}

/* argv: runtime folder, six descriptors, two data descriptors, "ready" descriptor, IV and tag in a
 * descriptor. */
static int client(char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct reseal_options o = {.size = sizeof(o), .runtime_dir = argv[0]};
    reseal *r;
    client_must(reseal_open(&r, &o), "reseal_open");
    reseal_key luks;
    client_must(reseal_key_luks(r, number(argv[1]), number(argv[2]), RESEAL_USE_SOURCE, &luks, NULL),
                "reseal_key_luks");
    reseal_key xts = client_key(r, number(argv[3]), RESEAL_XTS);
    reseal_key gcm_a = client_key(r, number(argv[4]), RESEAL_GCM),
               gcm_b = client_key(r, number(argv[5]), RESEAL_GCM);
    reseal_session *sessions[4] = {client_session(r, RESEAL_XTS, luks, RESEAL_XTS, xts),
                                   client_session(r, RESEAL_XTS, luks, RESEAL_GCM, gcm_b),
                                   client_session(r, RESEAL_GCM, gcm_a, RESEAL_XTS, xts),
                                   client_session(r, RESEAL_GCM, gcm_a, RESEAL_GCM, gcm_b)};
    struct reseal_queue_options q_options = {.size = sizeof(q_options), .depth = 8, .arena = 8 * RECORD};
    reseal_queue *q;
    client_must(reseal_queue_open(r, &q_options, &q), "reseal_queue_open");
    uint8_t *arena = reseal_queue_arena(q, NULL);
    client_must(rs_pread_full(number(argv[6]), arena, RECORD, 0), "data");
    client_must(rs_pread_full(number(argv[7]), arena + RECORD, RECORD, 0), "data");
    struct reseal_record source = {.derive = 0}, destination[4] = {{.derive = 0}};
    client_must(rs_pread_full(number(argv[9]), source.iv, 12, 0), "iv");
    client_must(rs_pread_full(number(argv[9]), source.tag, 16, 12), "tag");
    for (unsigned long turn = 0;; turn++) {
        struct reseal_completion done[4];
        for (unsigned i = 0; i < 4; i++) {
            struct reseal_job job = {.session = sessions[i],
                                     .in = arena + (i < 2 ? 0 : RECORD),
                                     .out = arena + (2 + i) * (size_t)RECORD,
                                     .len = RECORD,
                                     .source = i < 2 ? NULL : &source,
                                     .destination = i % 2 == 0 ? NULL : &destination[i]};
            client_must(reseal_submit(q, &job, 1), "reseal_submit");
        }
        for (int n = 0; n < 4;) {
            int got = reseal_wait(q, done, 4, 60000);
            client_must(got, "reseal_wait");
            for (int i = 0; i < got; i++) client_must(done[i].status, "job");
            n += got;
        }
        if (turn == 20 && write(number(argv[8]), "r", 1) != 1) return 3;
    }
}

static pid_t start_client(const struct service *s, const struct material *m)
{
    int ready[2], record;
    uint8_t iv_tag[28];
    memcpy(iv_tag, m->iv, 12);
    memcpy(iv_tag + 12, m->tag, 16);
    record = memfd_of(iv_tag, sizeof(iv_tag));
    must(pipe(ready) == 0, "pipe");
    const int fds[9] = {m->fd_header,    m->fd_pass,     m->fd_xts, m->fd_gcm_a, m->fd_gcm_b,
                        m->fd_luks_data, m->fd_gcm_data, ready[1],  record};
    char text[9][16], dir[sizeof(s->dir)];
    memcpy(dir, s->dir, sizeof(dir));
    char *argv[13] = {(char[]){"client"}, (char[]){"--client"}, dir};
    for (unsigned i = 0; i < 9; i++) {
        snprintf(text[i], sizeof(text[i]), "%d", fds[i]);
        argv[3 + i] = text[i];
    }
    pid_t pid = fork();
    must(pid >= 0, "fork");
    if (pid == 0) {
        close(ready[0]);
        execv("/proc/self/exe", argv); /* a fresh image: nothing of this process's memory */
        _exit(127);
    }
    close(ready[1]);
    char byte;
    must(read(ready[0], &byte, 1) == 1, "the client");
    close(ready[0]);
    return pid;
}

/* ---- all ------------------------------------------------------------------------------ */

static bool key_memory_is_secret(const struct service *s)
{
    struct reseal_options o = {.size = sizeof(o), .runtime_dir = s->dir};
    reseal *r;
    char *text = NULL;
    must(reseal_open(&r, &o) == 0 && reseal_status(r, &text) == 0, "status");
    json_t *status = json_loads(text, 0, NULL);
    const char *kind =
        json_string_value(json_object_get(json_object_get(status, "protections"), "key_memory"));
    bool secret = kind != NULL && strcmp(kind, "secret") == 0;
    json_decref(status);
    free(text);
    reseal_close(r);
    return secret;
}

static pid_t child_of(pid_t pid)
{
    char path[64];
    int child = 0;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
    FILE *f = fopen(path, "re");
    if (f == NULL) return 0;
    if (fscanf(f, "%d", &child) != 1) child = 0;
    fclose(f);
    return child;
}

static int scan_all(const struct service *s, pid_t client_pid)
{
    pid_t work = service_child(s, "reseald-work"), keyd = service_child(s, "reseal-keyd");
    must(work > 0 && keyd > 0, "the service's processes");
    const struct {
        const char *name;
        pid_t pid;
    } all[] = {{"reseald", s->pid},
               {"reseald-work", work},
               {"reseal-keyd", keyd},
               {"child of reseal-keyd", child_of(keyd)},
               {"client", client_pid}};
    size_t total = 0;
    for (unsigned round = 0; round < ROUNDS; round++)
        for (unsigned i = 0; i < RS_ARRAY_LEN(all); i++)
            if (all[i].pid > 0) total += needles_scan_process(all[i].pid, all[i].name);
    needles_scan_core(work, s->dir, "core of reseald-work");
    needles_scan_core(keyd, s->dir, "core of reseal-keyd");
    needles_scan_core(client_pid, s->dir, "core of the client");
    printf("%zu MiB read, %u needles, %u found\n", total >> 20, needles_count(), needles_found());
    return needles_found() == 0 ? 0 : 1;
}

/* With one engine, or with what calibration chooses. */
static int scan_with(const char *engine)
{
    struct service s;
    struct material m;
    if (engine != NULL) setenv("RESEAL_ENGINE", engine, 1);
    needles_clear();
    service_start(&s);
    int result = 77;
    if (key_memory_is_secret(&s)) {
        /* Two passes need the plaintext in the worker's private memory, which is locked and wiped. */
        struct rs_shape shape = {RS_XTS, RS_XTS, 256, 256, UNIT, UNIT, RECORD};
        const struct rs_engine *best = rs_engine_best(&shape);
        bool fused = engine == NULL && best != NULL && strncmp(best->name, "vaes", 4) == 0;
        make_material(&s, &m, fused);
        needles_check_scanner(m.xts);
        pid_t pid = start_client(&s, &m);
        result = scan_all(&s, pid);
        must(waitpid(pid, NULL, WNOHANG) == 0, "the client, to the end,");
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    } else {
        printf("no memfd_secret here: root can read key memory, and reseal status says so\n");
    }
    service_stop(&s);
    return result;
}

int main(int argc, char **argv)
{
    if (argc == 12 && strcmp(argv[1], "--client") == 0) return client(argv + 2);
    if (getuid() != 0) {
        printf("only root can read the memory of another program\n");
        return 77;
    }
    if (!service_is_built() || !rs_command_known("cryptsetup")) {
        printf("reseald or cryptsetup is not here\n");
        return 77;
    }
    needles_check_expansion();
    int result = scan_with(NULL);
    /* Its key schedules lie in what libcrypto allocates, which is easily forgotten. */
    return result != 0 ? result : scan_with("openssl");
}
