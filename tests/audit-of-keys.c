/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The audit has a line for each key that a client supplies, raw or by pass phrase, one for each session
 * before it has its keys, and one for what sessions did. A tenant sees its own. Where the audit cannot be
 * written, no key is taken and no session opens; those that are open go on.
 */
#include "tests/support/cmocka.h"
#include "tests/support/keyd.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#define ALICE 60001u
#define BOB   60002u

static struct keyd k;
static char policy[160];
static const struct rs_msg_key_use xts = {
    .cipher = RESEAL_XTS, .use = 3, .unit = 4096, .step = 8, .name = "mine"};
static const uint8_t raw_key[64] = {0x5e, 0xa1, 0x9d, 0x33, 0x71, 0x0c, 0xe8, 0x44, 0x1b, 0x62, 0xf7,
                                    0x95, 0x28, 0xda, 0x0e, 0x83, 0x6c, 0x17, 0xb0, 0x4f, 0xe2, 0x39,
                                    0x8d, 0x56, 0xc4, 0x7b, 0xa8, 0x12, 0xfd, 0x60, 0x9e, 0x25};

static void write_policy(void)
{
    char text[1024];
    (void)snprintf(
        text, sizeof(text),
        "{\"version\": 1, \"tenants\": {\n"
        "  \"acme\": {\"users\": [0, %u], \"pairs\": [{\"from\": \"raw:mine\", \"to\": \"random:*\"},"
        "    {\"from\": \"luks:*\", \"to\": \"random:*\"}]},\n"
        "  \"blue\": {\"users\": [%u]}}}\n",
        ALICE, BOB);
    RS_CLOSE int fd = open(policy, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || rs_write_full(fd, text, strlen(text)) != 0) exit(2);
}

/* ---- the audit ------------------------------------------------------------------------------------ */

/* Line `i` from the end of those of an operation, as this client sees them; NULL: there is none. */
static json_t *line_of(int sock, const char *operation, size_t i)
{
    json_t *reply = NULL;
    assert_int_equal(keyd_ask(sock, "audit.list", json_pack("{s:s}", "id", operation), NULL, 0, &reply, NULL),
                     0);
    json_t *lines = json_object_get(reply, "audit");
    size_t n = json_array_size(lines);
    json_t *line = i < n ? json_incref(json_array_get(lines, n - 1 - i)) : NULL;
    json_decref(reply);
    return line;
}

static size_t count_of(int sock, const char *operation)
{
    json_t *reply = NULL;
    assert_int_equal(keyd_ask(sock, "audit.list", json_pack("{s:s}", "id", operation), NULL, 0, &reply, NULL),
                     0);
    size_t n = json_array_size(json_object_get(reply, "audit"));
    json_decref(reply);
    return n;
}

static const char *text(const json_t *line, const char *name)
{
    const char *found = json_string_value(json_object_get(line, name));
    return found != NULL ? found : "";
}

static json_int_t number(const json_t *line, const char *name)
{
    return json_integer_value(json_object_get(line, name));
}

static const json_t *details_of(const json_t *line)
{
    return json_object_get(line, "details");
}

/* Waits for a line of the operation beside the `n` that there are. */
static json_t *next_line(int sock, const char *operation, size_t n)
{
    for (unsigned i = 0; i < 6000 && count_of(sock, operation) == n; i++) (void)poll(NULL, 0, 10);
    json_t *line = line_of(sock, operation, 0);
    assert_true(count_of(sock, operation) > n);
    return line;
}

static void handle_text(reseal_key id, char out[33])
{
    (void)snprintf(out, 33, "%016llx%016llx", (unsigned long long)id.id[0], (unsigned long long)id.id[1]);
}

static void assert_said_by(const json_t *line, unsigned uid, const char *tenant, const char *object,
                           int status)
{
    assert_int_equal(number(line, "uid"), uid);
    assert_int_equal(number(line, "pid"), getpid());
    assert_string_equal(text(line, "tenant"), tenant);
    assert_string_equal(text(line, "object"), object);
    assert_int_equal(number(line, "status"), status);
}

static struct rs_msg_session_request to_random(reseal_key from, reseal_key to)
{
    return session_of(RESEAL_XTS, from, RESEAL_XTS, to, 4096, 8);
}

/* A key that the service draws. */
static reseal_key draw(int sock, const char *name)
{
    struct rs_msg_key_use use = {.cipher = RESEAL_XTS, .use = 3, .unit = 4096, .step = 8, .bits = 256};
    reseal_key key;
    (void)snprintf(use.name, sizeof(use.name), "%s", name);
    assert_int_equal(keyd_random(sock, &use, &key), 0);
    return key;
}

/* As reseald-work says it; the reply is read. */
static void ended(uint32_t use, uint64_t jobs, uint64_t bytes)
{
    const struct rs_msg_session_ended m = {.use = use, .jobs = jobs, .bytes = bytes};
    struct rs_msg reply;
    assert_int_equal(rs_msg_send(k.work, RS_MSG_SESSION_ENDED, 0, &m, sizeof(m), NULL, 0, 0), 0);
    do assert_int_equal(rs_msg_recv(k.work, &reply, 0), 0);
    while (reply.header.type == RS_MSG_KEY_REVOKED);
    assert_int_equal(reply.header.type, RS_MSG_SESSION_ENDED | RS_MSG_REPLY);
}

/* ---- tests -------------------------------------------------------------------------------------------- */

static void a_raw_key_and_its_sessions(void **state)
{
    (void)state;
    int sock = keyd_connect(&k);
    reseal_key mine, drawn;
    char handle[33];
    struct rs_msg_session_keys keys, more;
    size_t ends = count_of(sock, "session.end");

    assert_int_equal(keyd_raw(sock, raw_key, sizeof(raw_key), &xts, &mine), 0);
    drawn = draw(sock, "new");
    json_t *line = line_of(sock, "key.raw", 0);
    assert_said_by(line, 0, "acme", "raw:mine", 0);
    handle_text(mine, handle);
    assert_string_equal(text(details_of(line), "handle"), handle);
    assert_string_equal(text(details_of(line), "cipher"), "xts");
    assert_int_equal(number(details_of(line), "bits"), 256);
    json_decref(line);

    struct rs_msg_session_request q = to_random(mine, drawn);
    assert_int_equal(keyd_session(&k, &q, &keys), 0);
    assert_int_not_equal(keys.use, 0);
    line = line_of(sock, "session.open", 0);
    assert_said_by(line, 0, "acme", "raw:mine -> random:new", 0);
    assert_string_equal(text(details_of(line), "source"), handle);
    json_decref(line);

    /* One more worker for the same session is no use of its own; another session is. */
    size_t opens = count_of(sock, "session.open");
    q.use = keys.use;
    assert_int_equal(keyd_session(&k, &q, &more), 0);
    assert_int_equal(more.use, keys.use);
    assert_int_equal(count_of(sock, "session.open"), opens);
    q.use = 0;
    assert_int_equal(keyd_session(&k, &q, &more), 0);
    assert_int_not_equal(more.use, keys.use);
    assert_int_equal(count_of(sock, "session.open"), opens + 1);
    /* Nor is it the same session with other keys. */
    q = to_random(mine, mine);
    q.use = keys.use;
    assert_int_equal(keyd_session(&k, &q, &more), RESEAL_EPAIR);
    line = line_of(sock, "session.open", 0);
    assert_said_by(line, 0, "acme", "raw:mine -> raw:mine", RESEAL_EPAIR);
    json_decref(line);

    ended(keys.use, 7, 28672);
    ended(keys.use, 7, 28672); /* it has ended: nothing is counted twice */
    line = next_line(sock, "session.end", ends);
    assert_said_by(line, 0, "acme", "raw:mine -> random:new", 0);
    assert_int_equal(number(details_of(line), "sessions"), 1);
    assert_int_equal(number(details_of(line), "jobs"), 7);
    assert_int_equal(number(details_of(line), "bytes"), 28672);
    json_decref(line);
    close(sock);
}

static void a_pass_phrase_and_those_that_are_wrong(void **state)
{
    (void)state;
    static const struct rs_msg_luks_format wish = {.use = 3,
                                                   .version = 2,
                                                   .unit = 4096,
                                                   .key_bits = 256,
                                                   .data_size = 1 << 20,
                                                   .pbkdf_ms = 10,
                                                   .pbkdf = 1};
    int sock = keyd_connect(&k), header = -1;
    struct rs_msg_luks made, opened;
    char object[64], handle[33];
    assert_int_equal(keyd_format(sock, &wish, "correct horse", &made, &header), 0);
    (void)snprintf(object, sizeof(object), "luks:%s", made.uuid);
    json_t *line = line_of(sock, "key.format", 0);
    assert_said_by(line, 0, "acme", object, 0);
    json_decref(line);

    RS_CLOSE int right = text_fd("correct horse", 13), wrong = text_fd("battery staple", 14);
    assert_int_equal(keyd_luks_fds(sock, header, right, RESEAL_USE_SOURCE, &opened), 0);
    line = line_of(sock, "key.phrase", 0);
    assert_said_by(line, 0, "acme", object, 0);
    handle_text(opened.key, handle);
    assert_string_equal(text(details_of(line), "handle"), handle);
    assert_true(json_is_false(json_object_get(details_of(line), "destination")));
    json_decref(line);

    /* Guesses are told the first time, then by powers of ten. */
    size_t before = count_of(sock, "key.phrase");
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(lseek(wrong, 0, SEEK_SET), 0);
        assert_int_equal(keyd_luks_fds(sock, header, wrong, RESEAL_USE_SOURCE, &opened), RESEAL_EPASS);
    }
    assert_int_equal(count_of(sock, "key.phrase"), before + 2);
    line = line_of(sock, "key.phrase", 0);
    assert_int_equal(number(line, "status"), RESEAL_EPASS);
    assert_int_equal(number(details_of(line), "times"), 9);
    json_decref(line);
    /* Who only looks at a header uses no key. */
    assert_int_equal(keyd_luks_fds(sock, header, right, 0, &opened), 0);
    assert_int_equal(count_of(sock, "key.phrase"), before + 2);
    close(header);
    close(sock);
}

static void a_tenant_sees_its_own(void **state)
{
    (void)state;
    reseal_key key;
    int alice = keyd_connect_as(&k, ALICE), bob = keyd_connect_as(&k, BOB);
    assert_int_equal(keyd_raw(alice, raw_key, sizeof(raw_key), &xts, &key), 0);
    assert_int_equal(count_of(alice, "key.raw"), 1); /* root's of the same tenant are not hers */
    assert_int_equal(count_of(bob, "key.raw"), 0);
    assert_int_equal(count_of(bob, "session.*"), 0);
    assert_int_equal(keyd_raw(bob, raw_key, sizeof(raw_key), &xts, &key), 0);
    assert_int_equal(count_of(bob, "key.raw"), 1);
    json_t *line = line_of(bob, "key.raw", 0);
    assert_string_equal(text(line, "tenant"), "blue");
    json_decref(line);
    assert_int_equal(count_of(alice, "key.raw"), 1);
    close(alice);
    close(bob);
}

/* How many lines there are, in all pages; those that a page may miss fail the test. Takes `args`. */
static unsigned pages(int sock, json_t *args)
{
    unsigned n = 0;
    json_int_t at = 0;
    for (bool more = true; more;) {
        json_t *reply = NULL;
        (void)json_object_set_new(args, "since", json_integer(at));
        assert_int_equal(keyd_ask(sock, "audit.list", json_incref(args), NULL, 0, &reply, NULL), 0);
        more = json_is_true(json_object_get(reply, "more"));
        assert_true(number(reply, "last") > at || !more);
        at = number(reply, "last");
        n += (unsigned)json_array_size(json_object_get(reply, "audit"));
        json_decref(reply);
    }
    json_decref(args);
    return n;
}

static void lines_that_left_memory_are_listed_and_chosen(void **state)
{
    (void)state;
    enum { SESSIONS = 2500 };
    static const char line[] = "raw:mine -> random:files";
    int sock = keyd_connect(&k), alice = keyd_connect_as(&k, ALICE), bob = keyd_connect_as(&k, BOB);
    reseal_key mine, drawn;
    struct rs_msg_session_keys keys;
    assert_int_equal(keyd_raw(sock, raw_key, sizeof(raw_key), &xts, &mine), 0);
    assert_int_equal(keyd_raw(bob, raw_key, sizeof(raw_key), &xts, &drawn), 0);
    drawn = draw(sock, "files");
    const struct rs_msg_session_request q = to_random(mine, drawn);
    for (unsigned i = 0; i < SESSIONS; i++) assert_int_equal(keyd_session(&k, &q, &keys), 0);
    assert_int_equal(pages(sock, json_pack("{s:s, s:s}", "id", "session.open", "object", line)), SESSIONS);
    assert_int_equal(pages(sock, json_pack("{s:s, s:i, s:s}", "id", "session.*", "user", 0, "object", line)),
                     SESSIONS);
    assert_int_equal(pages(sock, json_pack("{s:s, s:s}", "object", line, "from", "2026-01-01T00:00")),
                     SESSIONS);
    assert_int_equal(pages(sock, json_pack("{s:s, s:s}", "object", line, "from", "9999-01-01")), 0);
    assert_int_equal(pages(sock, json_pack("{s:s, s:i}", "object", line, "user", ALICE)), 0);
    assert_int_equal(pages(sock, json_pack("{s:s, s:s}", "object", line, "of_tenant", "blue")), 0);
    assert_true(pages(sock, json_pack("{s:s, s:i}", "of_tenant", "blue", "user", BOB)) >= 1);
    /* Of what is in the files, too, everybody sees what he did himself. */
    assert_int_equal(pages(alice, json_pack("{s:s}", "object", line)), 0);
    assert_int_equal(pages(bob, json_pack("{s:s}", "of_tenant", "acme")), 0);
    assert_true(pages(bob, json_object()) >= 1);
    close(sock);
    close(alice);
    close(bob);
    keyd_restart(&k, policy);
    sock = keyd_connect(&k);
    assert_int_equal(pages(sock, json_pack("{s:s, s:s}", "id", "session.open", "object", line)), SESSIONS);
    close(sock);
}

/* With room for no more, and what one user does beyond that. */
static void who_opens_sessions_without_end_loses_his_own_lines(void **state)
{
    (void)state;
    enum { SESSIONS = 4000 };
    reseal_key mine, drawn;
    struct rs_msg_session_keys keys;
    json_t *reply = NULL;
    k.keep_audit = "1";
    keyd_restart(&k, policy);
    int sock = keyd_connect(&k), bob = keyd_connect_as(&k, BOB);
    assert_int_equal(keyd_raw(bob, raw_key, sizeof(raw_key), &xts, &mine), 0);
    unsigned bobs = pages(bob, json_object());
    assert_int_equal(keyd_raw(sock, raw_key, sizeof(raw_key), &xts, &mine), 0);
    drawn = draw(sock, "");
    const struct rs_msg_session_request q = to_random(mine, drawn);
    for (unsigned i = 0; i < SESSIONS; i++) assert_int_equal(keyd_session(&k, &q, &keys), 0);
    unsigned all = pages(sock, json_pack("{s:i}", "user", 0));
    assert_in_range(all, 1000, SESSIONS);
    assert_int_equal(pages(bob, json_object()), bobs);
    assert_int_equal(keyd_ask(sock, "event.list", json_pack("{s:s}", "id", "reseal.journal.LinesDropped"),
                              NULL, 0, &reply, NULL),
                     0);
    json_t *event = json_array_get(json_object_get(reply, "events"), 0);
    assert_string_equal(text(details_of(event), "journal"), "audit.jsonl");
    assert_string_equal(text(details_of(event), "last-of-user"), "0");
    assert_true(number(details_of(event), "lines") > 0);
    json_decref(reply);
    k.keep_audit = NULL;
    keyd_restart(&k, policy);
    close(sock);
    close(bob);
}

static void sessions_of_a_service_that_died_are_told_as_lost(void **state)
{
    (void)state;
    int sock = keyd_connect(&k), pair[2];
    reseal_key mine, drawn;
    struct rs_msg_session_keys keys;
    size_t ends = count_of(sock, "session.end");
    assert_int_equal(keyd_raw(sock, raw_key, sizeof(raw_key), &xts, &mine), 0);
    drawn = draw(sock, "");
    const struct rs_msg_session_request q = to_random(mine, drawn);
    assert_int_equal(keyd_session(&k, &q, &keys), 0);
    assert_int_equal(keyd_session(&k, &q, &keys), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(rs_msg_send(k.supervisor, RS_MSG_WORK_PAIR, 0, NULL, 0, &pair[1], 1, 0), 0);
    close(pair[1]);
    close(k.work);
    k.work = pair[0];
    json_t *line = next_line(sock, "session.end", ends);
    while (!json_is_true(json_object_get(details_of(line), "lost"))) { /* sessions of other tests may be it */
        json_decref(line);
        line = next_line(sock, "session.end", ++ends);
    }
    json_decref(line);
    close(sock);
}

/* ---- without room ------------------------------------------------------------------------------------- */

static void in_state(const char *name, char out[200])
{
    (void)snprintf(out, 200, "%s/state/%s", k.dir, name);
}

static bool small_state_folder(void)
{
    char path[200];
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return false;
    in_state("", path);
    if (mount("none", path, "tmpfs", 0, "size=1m,mode=0700") != 0) return false;
    keyd_restart(&k, policy);
    close(keyd_connect(&k));
    return true;
}

static void fill(void)
{
    static const uint8_t page[4096] = {1};
    char path[200];
    in_state("filler", path);
    RS_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    while (write(fd, page, sizeof(page)) > 0) continue;
}

static void without_audit_no_session_opens(void **state)
{
    (void)state;
    if (!small_state_folder()) skip();
    char path[200];
    int sock = keyd_connect(&k), r = 0;
    reseal_key mine, drawn, other;
    struct rs_msg_session_keys first, keys;
    assert_int_equal(keyd_raw(sock, raw_key, sizeof(raw_key), &xts, &mine), 0);
    drawn = draw(sock, "");
    struct rs_msg_session_request q = to_random(mine, drawn);
    assert_int_equal(keyd_session(&k, &q, &first), 0);
    fill();
    /* The last page of the file may have room for some lines more. */
    for (unsigned i = 0; r == 0 && i < 1000; i++) r = keyd_session(&k, &q, &keys);
    assert_int_equal(r, RESEAL_EAUDIT);
    assert_int_equal(keyd_raw(sock, raw_key, sizeof(raw_key), &xts, &other), RESEAL_EAUDIT);
    /* One that is open gets a further worker. */
    q.use = first.use;
    assert_int_equal(keyd_session(&k, &q, &keys), 0);
    in_state("filler", path);
    assert_int_equal(unlink(path), 0);
    q.use = 0;
    assert_int_equal(keyd_session(&k, &q, &keys), 0);
    assert_int_equal(keyd_raw(sock, raw_key, sizeof(raw_key), &xts, &other), 0);
    close(sock);
    in_state("", path);
    (void)umount2(path, MNT_DETACH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_raw_key_and_its_sessions),
        cmocka_unit_test(a_pass_phrase_and_those_that_are_wrong),
        cmocka_unit_test(a_tenant_sees_its_own),
        cmocka_unit_test(sessions_of_a_service_that_died_are_told_as_lost),
        cmocka_unit_test(lines_that_left_memory_are_listed_and_chosen),
        cmocka_unit_test(who_opens_sessions_without_end_loses_his_own_lines),
        cmocka_unit_test(without_audit_no_session_opens),
    };
    char folder[] = "/tmp/reseal-audit-XXXXXX";
    signal(SIGPIPE, SIG_IGN);
    if (geteuid() != 0) {
        printf("clients of other users need root\n");
        return 77;
    }
    if (mkdtemp(folder) == NULL) return 2;
    (void)snprintf(policy, sizeof(policy), "%s/policy.json", folder);
    write_policy();
    keyd_start(&k, policy);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    keyd_stop(&k);
    (void)unlink(policy);
    (void)rmdir(folder);
    return failed;
}
