/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of a VM (NVRAM, vTPM state) do not come out of a bundle without plain-out for its provider, neither
 * as they are nor under a pass phrase, whatever privileges there are. The lines of a .vmx are for RegisterVM.
 */
#include "tests/support/cmocka.h"
#include "tests/support/keyd.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define USER 60001u

static struct keyd k;
static char policy[160];
static const char lines[] = "displayName = \"web\"\nguestinfo.note = \"kept\"\n";
static const char nvram[] = "variables of the firmware";

static void start(const char *pairs)
{
    char text[1024];
    (void)snprintf(
        text, sizeof(text),
        "{\"version\": 1, \"tenants\": {\"acme\": {\"users\": [%u], \"roles\": [\"Administrator\"]}},"
        " \"privileges\": [{\"to\": \"user:%u\", \"roles\": [\"Administrator\"]}],"
        " \"pairs\": [%s]}\n",
        USER, USER, pairs);
    RS_CLOSE int fd = open(policy, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || rs_write_full(fd, text, strlen(text)) != 0) exit(2);
    if (k.pid == 0)
        keyd_start(&k, policy);
    else
        keyd_restart(&k, policy);
}

static int ask(int sock, const char *method, json_t *args, const int *fds, unsigned n, json_t **reply,
               int *out, char why[400])
{
    json_t *answer = NULL;
    int r = keyd_ask(sock, method, args, fds, n, &answer, out);
    const char *error = json_string_value(json_object_get(answer, "error"));
    (void)snprintf(why, 400, "%s", error != NULL ? error : "");
    if (reply != NULL)
        *reply = answer;
    else
        json_decref(answer);
    return r;
}

static json_t *works(int sock, const char *method, json_t *args, const int *fds, unsigned n, int *out)
{
    char why[400];
    json_t *reply = NULL;
    if (ask(sock, method, args, fds, n, &reply, out, why) != 0) fail_msg("%s: %s", method, why);
    return reply;
}

static int empty_file(void)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

/* What a test begins with: a home, its bundle, and a file under it. */
struct vm {
    json_t *home;
    int text, nvram;
};

static json_t *bundle_of(const struct vm *v)
{
    return json_pack("{s:O}", "bundle", json_object_get(v->home, "bundle"));
}

static struct vm make_vm_of(int sock, const char *provider)
{
    struct vm v = {.nvram = empty_file(), .text = -1};
    RS_CLOSE int plain = text_fd(lines, sizeof(lines) - 1), file = text_fd(nvram, sizeof(nvram) - 1);
    v.home =
        works(sock, "home.seal", json_pack("{s:s, s:b}", "provider", provider, "new", 1), &plain, 1, &v.text);
    const int fds[2] = {file, v.nvram};
    json_decref(works(sock, "file.seal", bundle_of(&v), fds, 2, NULL));
    return v;
}

static struct vm make_vm(int sock)
{
    return make_vm_of(sock, "safe");
}

static void drop_vm(struct vm *v)
{
    json_decref(v->home);
    close(v->text);
    close(v->nvram);
}

static void native_provider(int sock, const char *name)
{
    RS_CLOSE int password = text_fd("of the backup", 13);
    int backup = -1;
    json_decref(
        works(sock, "provider.add", json_pack("{s:s, s:s}", "name", name, "kind", "native"), NULL, 0, NULL));
    json_decref(works(sock, "provider.export", json_pack("{s:s}", "provider", name), &password, 1, &backup));
    close(backup);
}

static int open_file(int sock, const struct vm *v, off_t *size, char why[400])
{
    struct stat st;
    RS_CLOSE int out = empty_file();
    const int fds[2] = {v->nvram, out};
    int r = ask(sock, "file.open", bundle_of(v), fds, 2, NULL, NULL, why);
    assert_int_equal(fstat(out, &st), 0);
    *size = st.st_size;
    return r;
}

static int rewrap_file(int sock, const struct vm *v, char why[400])
{
    RS_CLOSE int out = empty_file(), phrase = text_fd("of mine", 7);
    const int fds[3] = {v->nvram, out, phrase};
    json_t *args = bundle_of(v);
    (void)json_object_set_new(args, "to", json_string("phrase"));
    return ask(sock, "file.rewrap", args, fds, 3, NULL, NULL, why);
}

static int rewrap_home(int sock, const struct vm *v, char why[400])
{
    RS_CLOSE int phrase = text_fd("of mine", 7);
    json_t *args = bundle_of(v);
    (void)json_object_set(args, "keySafe", json_object_get(v->home, "keySafe"));
    (void)json_object_set_new(args, "phrase", json_true());
    return ask(sock, "home.rewrap", args, &phrase, 1, NULL, NULL, why);
}

/* The lines come out for who may register the VM. */
static void assert_lines(int sock, const struct vm *v)
{
    char text[sizeof(lines)] = "";
    int out = -1;
    json_t *args = bundle_of(v);
    (void)json_object_set(args, "keySafe", json_object_get(v->home, "keySafe"));
    json_decref(works(sock, "home.open", args, &v->text, 1, &out));
    assert_int_equal(rs_pread_full(out, text, sizeof(lines) - 1, 0), 0);
    assert_string_equal(text, lines);
    close(out);
}

static void without_the_grant_nothing_but_the_lines(void **unused)
{
    (void)unused;
    char why[400];
    off_t size;
    int sock = keyd_connect_as(&k, USER);
    native_provider(sock, "safe");
    struct vm v = make_vm(sock);
    assert_int_equal(open_file(sock, &v, &size, why), RESEAL_EPAIR);
    if (strstr(why, "provider:safe -> plain is not granted") == NULL) fail_msg("%s", why);
    assert_int_equal(size, 0);
    assert_int_equal(rewrap_file(sock, &v, why), RESEAL_EPAIR);
    assert_int_equal(rewrap_home(sock, &v, why), RESEAL_EPAIR);
    assert_lines(sock, &v);
    drop_vm(&v);
    close(sock);
}

/* A way round: under the key of a provider whose files may go out, what may not under its own. */
static void not_by_way_of_another_provider(void **unused)
{
    (void)unused;
    char why[400];
    start("{\"for\": \"tenant:acme\", \"from\": \"provider:safe\", \"to\": \"provider:safe\"},"
          "{\"for\": \"tenant:acme\", \"from\": \"provider:loose\", \"to\": \"plain\", \"grants\": "
          "[\"plain-out\"]}");
    int sock = keyd_connect_as(&k, USER);
    native_provider(sock, "loose");
    struct vm v = make_vm(sock), loose = make_vm_of(sock, "loose");
    /* home.rewrap, */
    json_t *args = bundle_of(&v);
    (void)json_object_set(args, "keySafe", json_object_get(v.home, "keySafe"));
    (void)json_object_set_new(args, "provider", json_string("loose"));
    assert_int_equal(ask(sock, "home.rewrap", args, NULL, 0, NULL, NULL, why), RESEAL_EPAIR);
    if (strstr(why, "provider:safe -> provider:loose is not granted") == NULL) fail_msg("%s", why);
    /* home.seal of the same bundle, */
    RS_CLOSE int plain = text_fd(lines, sizeof(lines) - 1);
    args = bundle_of(&v);
    (void)json_object_set_new(args, "provider", json_string("loose"));
    assert_int_equal(ask(sock, "home.seal", args, &plain, 1, NULL, NULL, why), RESEAL_EPAIR);
    if (strstr(why, "provider:safe -> provider:loose is not granted") == NULL) fail_msg("%s", why);
    /* and file.rewrap from one to the other. */
    RS_CLOSE int out = empty_file();
    const int fds[2] = {v.nvram, out};
    args = bundle_of(&v);
    (void)json_object_set(args, "to", json_object_get(loose.home, "bundle"));
    assert_int_equal(ask(sock, "file.rewrap", args, fds, 2, NULL, NULL, why), RESEAL_EPAIR);
    if (strstr(why, "provider:safe -> provider:loose is not granted") == NULL) fail_msg("%s", why);
    drop_vm(&v);
    drop_vm(&loose);
    close(sock);
}

static void with_it_for_that_provider(void **unused)
{
    (void)unused;
    char why[400];
    off_t size;
    start("{\"for\": \"tenant:acme\", \"from\": \"provider:safe\", \"to\": \"plain\", \"grants\": "
          "[\"plain-out\"]}");
    int sock = keyd_connect_as(&k, USER);
    struct vm v = make_vm(sock);
    assert_int_equal(open_file(sock, &v, &size, why), 0);
    assert_int_equal(size, sizeof(nvram) - 1);
    assert_int_equal(rewrap_file(sock, &v, why), 0);
    assert_int_equal(rewrap_home(sock, &v, why), 0);
    drop_vm(&v);
    close(sock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_the_grant_nothing_but_the_lines),
        cmocka_unit_test(not_by_way_of_another_provider),
        cmocka_unit_test(with_it_for_that_provider),
    };
    char folder[] = "/tmp/reseal-plain-out-XXXXXX";
    signal(SIGPIPE, SIG_IGN);
    if (geteuid() != 0) {
        printf("clients of other users need root\n");
        return 77;
    }
    if (mkdtemp(folder) == NULL) return 2;
    (void)snprintf(policy, sizeof(policy), "%s/policy.json", folder);
    start("{\"for\": \"tenant:acme\", \"from\": \"provider:safe\", \"to\": \"provider:safe\"}");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    keyd_stop(&k);
    (void)unlink(policy);
    (void)rmdir(folder);
    return failed;
}
