/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Root reads the memory of every process of a service that has made and fetched keys of a native and of a
 * standard provider, of the child that waits for a key server, and core dumps: no KDK, no KEK, no AES round
 * key of one, no private key, no password. Nor do they lie in the state folder. The same of a host that the
 * service pushed them to, its agent too, and of the private keys that the two show each other.
 */
#include "offload/base/keymem.h"
#include "offload/client/keyservice.h"
#include "providers/key/native/native.h"
#include "providers/key/standard/kmip-client.h"
#include "providers/key/store.h"
#include "tests/support/cmocka.h"
#include "tests/support/keycalls.h"
#include "tests/support/keyd.h"
#include "tests/support/kmip-server.h"
#include "tests/support/needles.h"
#include "tests/support/port.h"
#include "tests/support/service.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];
static struct kmip_server kms;
static reseal *client;

/* ---- requests ------------------------------------------------------------------------------ */

static void ask(const char *method, json_t *args)
{
    json_decref(call_works(client, method, args, NULL, 0, NULL));
}

static void make_key(const char *provider, char id[512])
{
    json_t *made = call_works(client, "kek.make", json_pack("{s:s}", "provider", provider), NULL, 0, NULL);
    (void)snprintf(id, 512, "%s", json_string_value(json_object_get(made, "key")));
    json_decref(made);
}

static reseal *connection(const char *runtime_dir)
{
    const struct reseal_options o = {.size = sizeof(o), .runtime_dir = runtime_dir};
    reseal *r;
    assert_int_equal(reseal_open(&r, &o), 0);
    return r;
}

/* ---- what is looked for ------------------------------------------------------------------------ */

struct secrets {
    struct rs_native_kdk kdk;
    uint8_t native[32], standard[32];
    char password[49]; /* random */
    char *pem;
};

static void random_text(char *out, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    assert_int_equal(RAND_bytes((uint8_t *)out, (int)len), 1);
    for (size_t i = 0; i < len; i++) out[i] = digits[(uint8_t)out[i] & 15];
    out[len] = '\0';
}

static char *text_of(const char *name)
{
    char path[128];
    size_t len;
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    uint8_t *bytes = file_bytes(path, &len);
    bytes[len] = '\0';
    return (char *)bytes;
}

static void read_scalar(const char *pem, uint8_t scalar_out[32])
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    BIGNUM *scalar = NULL;
    assert_true(key != NULL && EVP_PKEY_get_bn_param(key, "priv", &scalar) == 1);
    assert_int_equal(BN_bn2binpad(scalar, scalar_out, 32), 32);
    BN_clear_free(scalar);
    EVP_PKEY_free(key);
    BIO_free(bio);
}

static void private_key_needles(const char *pem)
{
    uint8_t scalar[32], turned[32];
    const char *body = strstr(pem, "PRIVATE KEY-----\n");
    assert_non_null(body);
    read_scalar(pem, scalar);
    for (unsigned i = 0; i < 32; i++) turned[i] = scalar[31 - i];
    needles_add((const uint8_t *)body + 80, "private key, PEM"); /* past the structure that all keys share */
    needles_add(scalar, "private key");
    needles_add(scalar + 16, "private key, later bytes");
    needles_add(turned, "private key, as a number");
    needles_add(turned + 16, "private key, as a number, later bytes");
}

static void add_needles(const struct secrets *s)
{
    needles_add_key(s->kdk.key, 256, "KDK");
    needles_add_key(s->native, 256, "KEK of the native provider");
    needles_add_key(s->standard, 256, "KEK of the standard provider");
    needles_add((const uint8_t *)s->password, "password");
    needles_add((const uint8_t *)s->password + 16, "password, later bytes");
    private_key_needles(s->pem);
}

/* What a service shows other machines, out of a copy of what its state folder has for it; other files come
 * and go while the service runs. */
static void identity_needles(const char *runtime_dir)
{
    char command[700], copy[96], why[256];
    struct rs_store *store;
    struct rs_secrets identity = {0};
    (void)snprintf(copy, sizeof(copy), "%s/state", folder);
    (void)snprintf(command, sizeof(command),
                   "rm -rf '%s' && mkdir -m 700 '%s' && cp -p '%s/state/host.key' "
                   "'%s/state/host-identity.sealed' '%s'",
                   copy, copy, runtime_dir, runtime_dir, copy);
    assert_int_equal(RUN("sh", "-c", command), 0);
    assert_int_equal(rs_store_open(copy, NULL, &store, why, sizeof(why)), 0);
    assert_int_equal(rs_store_get_secrets(store, "host-identity.sealed", &identity), 0);
    private_key_needles(rs_secrets_text(&identity, "key"));
    rs_secrets_free(&identity);
    rs_store_close(store);
}

/* ---- providers -------------------------------------------------------------------------------------- */

static void set_up_native(struct secrets *s)
{
    static const char password[] = "a long enough password";
    char id[512];
    uint8_t der[RS_NATIVE_BACKUP_MAX];
    struct stat st;
    int out = -1;
    ask("provider.add", json_pack("{s:s, s:s}", "name", "safe", "kind", "native"));
    RS_CLOSE int fd = text_fd(password, strlen(password));
    json_decref(call_works(client, "provider.export", json_pack("{s:s}", "provider", "safe"), &fd, 1, &out));
    assert_true(fstat(out, &st) == 0 && st.st_size <= (off_t)sizeof(der));
    assert_int_equal(rs_pread_full(out, der, (size_t)st.st_size, 0), 0);
    assert_int_equal(rs_native_restore(der, (size_t)st.st_size, password, &s->kdk), 0);
    close(out);
    make_key("safe", id);
    assert_int_equal(rs_native_open(&s->kdk, id, s->native), 0);
}

static void add_standard(const struct secrets *s, const char *name, uint16_t port)
{
    char address[32], *ca = text_of("ca.crt"), *cert = text_of("alice.crt");
    (void)snprintf(address, sizeof(address), "127.0.0.1:%u", port);
    const int fds[2] = {text_fd(s->pem, strlen(s->pem)), text_fd(s->password, strlen(s->password))};
    json_t *config = json_pack("{s:[s], s:s, s:s, s:s, s:i, s:i}", "servers", address, "ca", ca,
                               "certificate", cert, "user", "alice", "connect_s", 60, "request_s", 60);
    json_t *args = json_pack("{s:s, s:s, s:o, s:[ss]}", "name", name, "kind", "standard", "config", config,
                             "secrets", "key", "password");
    json_decref(call_works(client, "provider.add", args, fds, 2, NULL));
    close(fds[0]);
    close(fds[1]);
    free(ca);
    free(cert);
}

/* The same key, got by this program from the server. */
static void fetch_standard(struct secrets *s, const char *id)
{
    char *ca = text_of("ca.crt"), *cert = text_of("alice.crt");
    const struct rs_kmip_config config = {.servers = {{.host = "127.0.0.1", .port = kms.port}},
                                          .nservers = 1,
                                          .trust = {.ca = ca, .cert = cert, .key = s->pem},
                                          .connect_ms = 60000,
                                          .request_ms = 60000};
    struct rs_kmip_client *c;
    struct rs_kmip_key key;
    assert_int_equal(rs_kmip_client_open(&c, &config), 0);
    assert_int_equal(rs_kmip_fetch(c, id, 256, NULL, &key), 0);
    memcpy(s->standard, key.bytes, 32);
    rs_kmip_client_close(c);
    free(ca);
    free(cert);
}

/* ---- processes ----------------------------------------------------------------------------------------- */

/* The first child of a process, 0: none yet. */
static pid_t child_of(pid_t pid)
{
    char path[64];
    int child = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
    FILE *f = fopen(path, "re");
    if (f == NULL) return 0;
    if (fscanf(f, "%d", &child) != 1) child = 0;
    (void)fclose(f);
    return child;
}

/* Waits for a server that never answers. */
static void *wait_for_slow(void *arg)
{
    char why[RS_KEYSERVICE_WHY];
    json_t *args = json_pack("{s:s, s:s}", "provider", "slow", "key", "1");
    (void)!rs_keyservice_call(arg, "kek.status", args, NULL, 0, NULL, NULL, why, sizeof(why));
    return NULL;
}

/* All of a service, and a core dump of what has the keys. At least `least` processes. */
static void scan(struct service *of, unsigned least)
{
    unsigned processes = 0;
    pid_t keyd = service_child(of, "reseal-keyd");
    assert_true(keyd > 0);
    size_t total = needles_scan_tree(of->pid, &processes);
    needles_scan_core(keyd, of->dir, "core of reseal-keyd");
    printf("%u processes, %zu MiB read, %u needles, %u found\n", processes, total >> 20, needles_count(),
           needles_found());
    assert_true(processes >= least);
    assert_int_equal(needles_found(), 0);
}

/* reseald, reseald-work, reseal-keyd, its nursery, the child that waits. */
static void scan_with_waiting_child(void)
{
    pid_t nursery = child_of(service_child(&service, "reseal-keyd"));
    assert_true(nursery > 0);
    while (child_of(nursery) == 0) poll(NULL, 0, 10);
    scan(&service, 5);
}

static void assert_not_on_disk(const struct secrets *s)
{
    char command[600];
    const char *const texts[] = {s->password, strstr(s->pem, "-----\n") + 6 + 80};
    for (unsigned i = 0; i < RS_ARRAY_LEN(texts); i++) {
        (void)snprintf(command, sizeof(command), "grep -rqaF -- '%.16s' '%s/state'", texts[i], service.dir);
        int found = 2; /* a file that was listed is gone: the service writes some anew */
        for (unsigned tries = 0; found == 2 && tries < 100; tries++) found = RUN("sh", "-c", command);
        assert_int_equal(found, 1);
    }
}

/* ---- a host that they are pushed to ----------------------------------------------------------------------
 */

static void host_start(struct service *host, char address[32])
{
    (void)snprintf(address, 32, "127.0.0.1:%u", free_port());
    service_start_with(host, (const char *const[]){"--agent", address, NULL});
}

static void trust_each_other(reseal *host, const char *address)
{
    json_t *manager = call_works(client, "host.identity", NULL, NULL, 0, NULL),
           *self = call_works(host, "host.identity", NULL, NULL, 0, NULL);
    json_decref(call_works(host, "host.trust",
                           json_pack("{s:s}", "fingerprint", call_text(manager, "fingerprint")), NULL, 0,
                           NULL));
    ask("host.add", json_pack("{s:s, s:s, s:s, s:s}", "name", "one", "address", address, "cluster", "all",
                              "fingerprint", call_text(self, "fingerprint")));
    json_decref(manager);
    json_decref(self);
}

/* Waits until the host has the key in memory, without a provider of its own for it. */
static void wait_for_key(reseal *host, const char *id)
{
    for (bool there = false; !there; poll(NULL, 0, 20)) {
        json_t *status = call_works(host, "kek.status",
                                    json_pack("{s:s, s:s, s:b}", "provider", "vault", "key", id, "probe", 0),
                                    NULL, 0, NULL);
        there = json_is_true(json_object_get(status, "available"));
        json_decref(status);
    }
}

/* The host makes disks with both keys. */
static void use_on_host(reseal *host, const char *provider, const char *id)
{
    int header = -1;
    json_t *args = json_pack("{s:s, s:i, s:I, s:b}", "provider", provider, "use", 3, "data_size",
                             (json_int_t)65536, "existing", 1);
    if (id != NULL) (void)json_object_set_new(args, "key", json_string(id));
    json_decref(call_works(host, "disk.format", args, NULL, 0, &header));
    close(header);
}

static void push_to_host(const char *id)
{
    static struct service host;
    char address[32];
    host_start(&host, address);
    reseal *on_host = connection(host.dir);
    trust_each_other(on_host, address);
    wait_for_key(on_host, id);
    identity_needles(service.dir);
    identity_needles(host.dir);
    use_on_host(on_host, "vault", id);
    use_on_host(on_host, "safe", NULL);
    const struct service keyd = {.pid = service_child(&host, "reseal-keyd")};
    assert_true(service_child(&keyd, "reseal-agent") > 0);
    /* reseald, reseald-work, reseal-keyd, its nursery, its agent. */
    scan(&host, 5);
    scan(&service, 4);
    ask("provider.remove", json_pack("{s:s, s:b}", "provider", "safe", "force", 1));
    reseal_close(on_host);
    service_stop(&host);
}

/* ---- the test ---------------------------------------------------------------------------------------------
 */

static void test_no_secret_can_be_read(void **state)
{
    static struct secrets s;
    char id[512];
    uint16_t slow;
    pthread_t thread;
    (void)state;
    if (rs_keymem_kind() != RS_KEYMEM_SECRET) {
        printf("no secret memory on this machine: its key memory can be read by root\n");
        skip();
    }
    needles_check_expansion();
    s.pem = text_of("alice.key");
    random_text(s.password, sizeof(s.password) - 1);
    set_up_native(&s);
    add_standard(&s, "vault", kms.port);
    make_key("vault", id);
    fetch_standard(&s, id);
    RS_CLOSE RS_UNUSED int listener = kmip_listen(&slow);
    add_standard(&s, "slow", slow);
    add_needles(&s);
    needles_check_scanner(s.kdk.key);
    reseal *other = connection(service.dir);
    assert_int_equal(pthread_create(&thread, NULL, wait_for_slow, other), 0);
    scan_with_waiting_child();
    ask("kek.forget", NULL);
    ask("kek.status", json_pack("{s:s, s:s}", "provider", "vault", "key", id));
    ask("provider.test", json_pack("{s:s}", "provider", "vault"));
    scan_with_waiting_child();
    assert_not_on_disk(&s);
    ask("provider.remove",
        json_pack("{s:s, s:b}", "provider", "slow", "force", true)); /* who waits is told */
    pthread_join(thread, NULL);
    reseal_close(other);
    push_to_host(id);
    free(s.pem);
}

static int start(void **state)
{
    (void)snprintf(folder, sizeof(folder), "/tmp/reseal-kmip-XXXXXX");
    if (mkdtemp(folder) == NULL || rs_keymem_init(0) != 0) return -1;
    kmip_server_start(folder, &kms, NULL);
    if (service_group_start(state) != 0) return -1;
    client = connection(service.dir);
    return 0;
}

static int stop(void **state)
{
    reseal_close(client);
    kmip_server_kill(&kms);
    (void)RUN("rm", "-rf", folder);
    return service_group_stop(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_secret_can_be_read)};
    if (!service_is_built()) return 77;
    return cmocka_run_group_tests(tests, start, stop);
}
