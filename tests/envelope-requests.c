/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests file.*: what the bundle of a VM seals opens with that bundle and no other; wrong arguments and
 * wrong descriptors are told in one line; a client that goes away ends what it began.
 */
#include "tests/support/client.h"
#include "tests/support/cmocka.h"
#include "tests/support/envelopes.h"
#include "tests/support/keycalls.h"
#include "tests/support/keyd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static struct client c;
static char bundle[4096], other_bundle[4096];

/* ---- VMs ------------------------------------------------------------------------------- */

static void new_vm(char *out, size_t room)
{
    RS_CLOSE int lines = text_fd("nvram = \"a.nvram\"\n", 18);
    int data = -1;
    json_t *home =
        call_works(c.r, "home.seal", json_pack("{s:s, s:b}", "provider", "p", "new", 1), &lines, 1, &data);
    (void)snprintf(out, room, "%s", call_text(home, "bundle"));
    assert_true(strlen(out) < room - 1);
    json_decref(home);
    close(data);
}

static json_t *by(const char *text)
{
    return json_pack("{s:s}", "bundle", text);
}

static int empty(void)
{
    return pattern_file(0, 0);
}

/* An envelope of these bytes. */
static int seal(json_t *args, int plain)
{
    const int fds[2] = {plain, empty()};
    assert_int_equal(lseek(plain, 0, SEEK_SET), 0);
    json_t *answer = call_works(c.r, "file.seal", args, fds, 2, NULL);
    assert_int_equal(json_integer_value(json_object_get(answer, "bytes")), length_of(plain));
    assert_false(json_is_true(json_object_get(answer, "cut")));
    json_decref(answer);
    return fds[1];
}

static void opens(json_t *args, int envelope, int plain)
{
    const int fds[2] = {envelope, empty()};
    json_decref(call_works(c.r, "file.open", args, fds, 2, NULL));
    assert_true(same_bytes(plain, fds[1]));
    close(fds[1]);
}

static void refused(json_t *args, int envelope, int code, const char *words)
{
    const int fds[2] = {envelope, empty()};
    call_refused(c.r, "file.open", args, fds, 2, code, words);
    assert_int_equal(length_of(fds[1]), 0);
    close(fds[1]);
}

/* ---- tests ------------------------------------------------------------------------------- */

static void a_bundle_opens_what_it_sealed(void **state)
{
    static const uint64_t lengths[] = {0, 1, 4096, 540672, 3000001};
    (void)state;
    for (unsigned i = 0; i < RS_ARRAY_LEN(lengths); i++) {
        int plain = pattern_file(lengths[i], i), envelope = seal(by(bundle), plain);
        opens(by(bundle), envelope, plain);
        refused(by(other_bundle), envelope, RESEAL_EKEYBAD, "another key");
        refused(json_pack("{s:b}", "host", 1), envelope, RESEAL_EKEYBAD, "reseal:bundle");
        close(plain);
        close(envelope);
    }
}

static void one_file_is_not_taken_for_another(void **state)
{
    (void)state;
    int plain = pattern_file(5000, 1);
    int envelope = seal(json_pack("{s:s, s:s}", "bundle", bundle, "aad", "nvram"), plain);
    opens(json_pack("{s:s, s:s}", "bundle", bundle, "aad", "nvram"), envelope, plain);
    refused(json_pack("{s:s, s:s}", "bundle", bundle, "aad", "tpm"), envelope, RESEAL_EAUTH, "AAD");
    refused(by(bundle), envelope, RESEAL_EAUTH, "AAD");
    close(plain);
    close(envelope);
}

static void from_bundle_to_bundle(void **state)
{
    (void)state;
    int plain = pattern_file(3000001, 3);
    json_t *args =
        json_pack("{s:s, s:s, s:{s:s}}", "bundle", bundle, "aad", "nvram", "attributes", "x-Name", "vm");
    int envelope = seal(args, plain);
    const int fds[3] = {envelope, empty(), plain};
    args = json_pack("{s:s, s:s, s:s}", "bundle", bundle, "to", other_bundle, "aad", "nvram");
    json_decref(call_works(c.r, "file.rewrap", args, fds, 2, NULL));
    opens(json_pack("{s:s, s:s}", "bundle", other_bundle, "aad", "nvram"), fds[1], plain);
    refused(json_pack("{s:s, s:s}", "bundle", bundle, "aad", "nvram"), fds[1], RESEAL_EKEYBAD, "another key");
    json_t *about = call_works(c.r, "file.describe", NULL, &fds[1], 1, NULL);
    assert_string_equal(call_text(json_object_get(about, "attributes"), "x-Name"), "vm");
    json_decref(about);
    /* What does not open is not sealed anew. */
    const int again[2] = {envelope, empty()};
    args = json_pack("{s:s, s:s}", "bundle", other_bundle, "to", bundle);
    call_refused(c.r, "file.rewrap", args, again, 2, RESEAL_EKEYBAD, "another key");
    args = json_pack("{s:s, s:s}", "bundle", bundle, "to", "nothing at all");
    call_refused(c.r, "file.rewrap", args, again, 2, RESEAL_EFORMAT, "");
    args = json_pack("{s:s, s:s}", "bundle", bundle, "to", "phrase");
    call_refused(c.r, "file.rewrap", args, fds, 2, RESEAL_EINVAL, "to another");
    assert_int_equal(length_of(again[1]), 0);
    close(again[1]);
    close(fds[1]);
    close(plain);
    close(envelope);
}

static void a_bundle_that_is_none_is_told(void **state)
{
    (void)state;
    int plain = pattern_file(10, 1), envelope = seal(by(bundle), plain);
    char torn[sizeof(bundle)];
    refused(by("vmware:key/list/("), envelope, RESEAL_EFORMAT, "");
    refused(by("nothing at all"), envelope, RESEAL_EFORMAT, "");
    refused(by("vmware:key/list/()"), envelope, RESEAL_EFORMAT, "");
    (void)snprintf(torn, sizeof(torn), "%s", bundle);
    char *provider = strstr(torn, "/p/");
    assert_non_null(provider);
    provider[1] = 'q';
    refused(by(torn), envelope, RESEAL_ENOKEY, "q");
    close(plain);
    close(envelope);
}

static void the_host_s_key(void **state)
{
    (void)state;
    int plain = pattern_file(70000, 1);
    json_t *args =
        json_pack("{s:b, s:{s:s}, s:i}", "host", 1, "attributes", "x-Name", "grüße", "max", 100000);
    int envelope = seal(args, plain), text = empty();
    opens(json_pack("{s:b}", "host", 1), envelope, plain);
    json_t *about = call_works(c.r, "file.describe", NULL, &envelope, 1, NULL);
    assert_string_equal(call_text(about, "key"), "host");
    assert_string_equal(call_text(json_object_get(about, "attributes"), "x-Name"), "grüße");
    json_decref(about);
    /* Cut at the limit, and said so. */
    const int fds[2] = {plain, text};
    assert_int_equal(lseek(plain, 0, SEEK_SET), 0);
    json_t *answer =
        call_works(c.r, "file.seal", json_pack("{s:b, s:i}", "host", 1, "max", 69999), fds, 2, NULL);
    assert_true(json_is_true(json_object_get(answer, "cut")));
    assert_int_equal(json_integer_value(json_object_get(answer, "bytes")), 69999);
    json_decref(answer);
    close(plain);
    close(envelope);
    close(text);
}

static void arguments_that_cannot_be_are_refused(void **state)
{
    (void)state;
    int plain = pattern_file(10, 1), out = empty();
    const int fds[3] = {plain, out, plain};
    char name[60] = "";
    memset(name, 'n', sizeof(name) - 1);
    static const char one_of[] = "one of host, bundle and phrase";
    call_refused(c.r, "file.seal", NULL, fds, 2, RESEAL_EINVAL, one_of);
    call_refused(c.r, "file.seal", json_pack("{s:s, s:b}", "bundle", bundle, "host", 1), fds, 2,
                 RESEAL_EINVAL, one_of);
    call_refused(c.r, "file.open", json_pack("{s:b, s:b}", "phrase", 1, "host", 1), fds, 3, RESEAL_EINVAL,
                 one_of);
    call_refused(c.r, "file.open", json_pack("{s:b}", "phrase", 1), fds, 2, RESEAL_EINVAL,
                 "third descriptor");
    call_refused(c.r, "file.open", json_pack("{s:b}", "host", 1), fds, 3, RESEAL_EINVAL, "descriptor");
    call_refused(c.r, "file.open", json_pack("{s:i}", "host", 1), fds, 2, RESEAL_EINVAL, "true or false");
    call_refused(c.r, "file.rewrap", json_pack("{s:b, s:s}", "host", 1, "to", "host"), fds, 3, RESEAL_EINVAL,
                 "phrase");
    call_refused(c.r, "file.seal", json_pack("{s:b, s:i}", "host", 1, "max", -1), fds, 2, RESEAL_EINVAL,
                 "max");
    call_refused(c.r, "file.seal", json_pack("{s:b, s:[]}", "host", 1, "attributes"), fds, 2, RESEAL_EINVAL,
                 "attributes");
    call_refused(c.r, "file.seal", json_pack("{s:b, s:{s:s}}", "host", 1, "attributes", "vmware.iv", "x"),
                 fds, 2, RESEAL_EINVAL, "vmware.");
    call_refused(c.r, "file.seal", json_pack("{s:b, s:{s:i}}", "host", 1, "attributes", "a", 1), fds, 2,
                 RESEAL_EINVAL, "a text");
    call_refused(c.r, "file.seal", json_pack("{s:b, s:{s:s}}", "host", 1, "attributes", name, "x"), fds, 2,
                 RESEAL_EINVAL, "a name");
    json_t *many = json_object();
    char value[500];
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    for (int i = 0; i < 9; i++) {
        (void)snprintf(name, sizeof(name), "n%d", i);
        json_object_set_new(many, name, json_string(value));
    }
    call_refused(c.r, "file.seal", json_pack("{s:b, s:o}", "host", 1, "attributes", many), fds, 2,
                 RESEAL_EINVAL, "header");
    assert_int_equal(length_of(out), 0);
    close(plain);
    close(out);
}

static void descriptors_that_cannot_be_are_told(void **state)
{
    (void)state;
    int ends[2], plain = pattern_file(10, 1), envelope = seal(json_pack("{s:b}", "host", 1), plain);
    RS_CLOSE int read_only = open("/dev/null", O_RDONLY | O_CLOEXEC),
                 full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    const int pipe_in[2] = {ends[0], plain}, not_to_read[2] = {ends[1], plain},
              no_write[2] = {envelope, read_only}, no_room[2] = {envelope, full};
    call_refused(c.r, "file.open", json_pack("{s:b}", "host", 1), pipe_in, 2, RESEAL_EINVAL, "regular file");
    call_refused(c.r, "file.seal", json_pack("{s:b}", "host", 1), not_to_read, 2, RESEAL_EIO, "cannot read");
    call_refused(c.r, "file.open", json_pack("{s:b}", "host", 1), no_write, 2, RESEAL_EIO, "cannot write");
    call_refused(c.r, "file.open", json_pack("{s:b}", "host", 1), no_room, 2, RESEAL_EIO, "make room");
    close(ends[0]);
    close(ends[1]);
    close(plain);
    close(envelope);
}

/* The other end of the pipe notices when nobody reads from it any more. */
static void a_client_that_goes_away_ends_its_work(void **state)
{
    int ends[2];
    (void)state;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const struct reseal_options options = {.size = sizeof(options), .runtime_dir = c.service.dir};
        const int fds[2] = {ends[0], memfd_create("out", MFD_CLOEXEC)};
        reseal *r;
        char why[RS_KEYSERVICE_WHY];
        close(ends[1]);
        if (reseal_open(&r, &options) != 0) _exit(1);
        (void)!rs_keyservice_call(r, "file.seal", json_pack("{s:b}", "host", 1), fds, 2, NULL, NULL, why,
                                  sizeof(why));
        _exit(2);
    }
    close(ends[0]);
    /* More than the pipe holds: somebody reads. */
    static uint8_t bytes[1u << 20];
    assert_int_equal(rs_write_full(ends[1], bytes, sizeof(bytes)), 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
    struct pollfd p = {.fd = ends[1], .events = 0};
    assert_int_equal(poll(&p, 1, 60000), 1);
    assert_true((p.revents & POLLERR) != 0);
    close(ends[1]);
}

static int start(void **state)
{
    (void)state;
    client_require_service();
    client_start(&c);
    call_native_provider(c.r, "p");
    new_vm(bundle, sizeof(bundle));
    new_vm(other_bundle, sizeof(other_bundle));
    return 0;
}

static int stop(void **state)
{
    (void)state;
    client_stop(&c);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bundle_opens_what_it_sealed),
        cmocka_unit_test(one_file_is_not_taken_for_another),
        cmocka_unit_test(from_bundle_to_bundle),
        cmocka_unit_test(a_bundle_that_is_none_is_told),
        cmocka_unit_test(the_host_s_key),
        cmocka_unit_test(arguments_that_cannot_be_are_refused),
        cmocka_unit_test(descriptors_that_cannot_be_are_told),
        cmocka_unit_test(a_client_that_goes_away_ends_its_work),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, start, stop);
}
