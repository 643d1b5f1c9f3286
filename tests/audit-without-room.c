/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the audit cannot be written no key is used, and the line says so; what only looks goes on, and so do
 * events, which wait in memory and are counted when they get lost. With room again nothing of the audit is
 * missing. A line that a crash left unfinished is taken away.
 */
#include "tests/support/cmocka.h"
#include "tests/support/keyd.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

static struct keyd k;

static void path_of(const char *name, char out[160])
{
    (void)snprintf(out, 160, "%s/state/%s", k.dir, name);
}

static void fill(void)
{
    static const uint8_t page[4096] = {1};
    char path[160];
    path_of("filler", path);
    RS_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    while (write(fd, page, sizeof(page)) > 0) continue;
}

static void make_room(void)
{
    char path[160];
    path_of("filler", path);
    assert_int_equal(unlink(path), 0);
}

static int ask(int sock, const char *method, json_t *args, char why[400])
{
    json_t *reply = NULL;
    int r = keyd_ask(sock, method, args, NULL, 0, &reply, NULL);
    const char *error = json_string_value(json_object_get(reply, "error"));
    (void)snprintf(why, 400, "%s", error != NULL ? error : "");
    json_decref(reply);
    return r;
}

static int make_key(int sock, char why[400])
{
    return ask(sock, "kek.make", json_pack("{s:s}", "provider", "safe"), why);
}

/* The last page of the file may have room for some lines more. */
static void use_until_refused(int sock)
{
    char why[400];
    int r = 0;
    for (unsigned i = 0; r == 0 && i < 1000; i++) r = make_key(sock, why);
    assert_int_equal(r, RESEAL_EIO);
    if (strstr(why, "the audit cannot be written (no space left)") == NULL) fail_msg("%s", why);
}

static int tell(int sock)
{
    char why[400];
    return ask(sock, "vm.tell",
               json_pack("{s:s, s:s, s:s}", "id", "com.vmware.vc.vm.Crypto.VMUnlocked", "message",
                         "a line that is as long as lines of events are, so that they fill memory soon", "vm",
                         "web"),
               why);
}

/* Every line of a journal is whole, and its number follows that of the one before, but for `gaps` of them. */
static void assert_whole(const char *name, unsigned gaps)
{
    char path[160];
    size_t len;
    json_int_t last = 0;
    unsigned seen = 0;
    path_of(name, path);
    uint8_t *bytes = file_bytes(path, &len);
    bytes[len] = '\0';
    for (char *at = (char *)bytes, *end; *at != '\0'; at = end + 1) {
        end = strchr(at, '\n');
        assert_non_null(end);
        json_t *line = json_loadb(at, (size_t)(end - at), 0, NULL);
        if (line == NULL) fail_msg("%s: %.*s", name, (int)(end - at), at);
        json_int_t n = json_integer_value(json_object_get(line, "n"));
        assert_true(n > last);
        seen += n != last + 1;
        last = n;
        json_decref(line);
    }
    assert_true(last > 0);
    assert_int_equal(seen, gaps);
    free(bytes);
}

static void without_audit_no_key_is_used(void **state)
{
    (void)state;
    char why[400];
    int sock = keyd_connect(&k);
    assert_int_equal(make_key(sock, why), 0);
    fill();
    use_until_refused(sock);
    assert_int_equal(ask(sock, "provider.default", json_pack("{s:s}", "provider", "safe"), why), RESEAL_EIO);
    assert_int_equal(ask(sock, "provider.list", NULL, why), 0);
    assert_int_equal(ask(sock, "audit.list", NULL, why), 0);
    make_room();
    assert_int_equal(make_key(sock, why), 0);
    assert_whole("audit.jsonl", 0);
    close(sock);
}

static void events_go_on_and_those_lost_are_counted(void **state)
{
    (void)state;
    int sock = keyd_connect(&k);
    char path[160];
    size_t len;
    fill();
    use_until_refused(sock);
    for (unsigned i = 0; i < 1500; i++) assert_int_equal(tell(sock), 0);
    make_room();
    assert_int_equal(tell(sock), 0);
    path_of("events.jsonl", path);
    assert_whole("events.jsonl", 1);
    uint8_t *bytes = file_bytes(path, &len);
    bytes[len] = '\0';
    const char *told = strstr((const char *)bytes, "\"id\":\"reseal.journal.LinesLost\"");
    assert_non_null(told);
    assert_non_null(strstr(told, "\"audit\":0"));
    free(bytes);
    close(sock);
}

static void an_unfinished_line_goes(void **state)
{
    (void)state;
    char path[160], why[400];
    path_of("audit.jsonl", path);
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    assert_int_equal(rs_write_full(fd, "{\"n\":77,\"time\":\"20", 19), 0);
    close(fd);
    keyd_restart(&k, NULL);
    int sock = keyd_connect(&k);
    assert_int_equal(make_key(sock, why), 0);
    assert_whole("audit.jsonl", 0);
    close(sock);
}

static void native_provider(void)
{
    int sock = keyd_connect(&k), out = -1;
    RS_CLOSE int password = text_fd("of the backup", 13);
    if (keyd_ask(sock, "provider.add", json_pack("{s:s, s:s}", "name", "safe", "kind", "native"), NULL, 0,
                 NULL, NULL) != 0 ||
        keyd_ask(sock, "provider.export", json_pack("{s:s}", "provider", "safe"), &password, 1, NULL, &out) !=
            0)
        exit(2);
    close(out);
    close(sock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_audit_no_key_is_used),
        cmocka_unit_test(events_go_on_and_those_lost_are_counted),
        cmocka_unit_test(an_unfinished_line_goes),
    };
    char path[160];
    signal(SIGPIPE, SIG_IGN);
    if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        printf("a small file system can be mounted by root only, and not in this container\n");
        return 77;
    }
    keyd_start(&k, NULL);
    close(keyd_connect(&k)); /* its folder is there */
    path_of("", path);
    if (mount("none", path, "tmpfs", 0, "size=1m,mode=0700") != 0) {
        printf("no tmpfs can be mounted here\n");
        keyd_stop(&k);
        return 77;
    }
    keyd_restart(&k, NULL);
    native_provider();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)umount2(path, MNT_DETACH);
    keyd_stop(&k);
    return failed;
}
