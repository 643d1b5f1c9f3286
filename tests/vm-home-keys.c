/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Homes of encrypted VMs, through a real key service: sealed, opened, rewrapped; by a key provider and by the
 * pass phrase of a published sample. What was changed, mixed up or is another's is refused in one line.
 */
#include "offload/base/keymem.h"
#include "offload/vm/locator.h"
#include "providers/key/locked.h"
#include "tests/support/client.h"
#include "tests/support/cmocka.h"
#include "tests/support/keycalls.h"
#include "tests/support/keyd.h"
#include "tests/support/published.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LINES "displayName = \"secret plans\"\nmemsize = \"512\"\n"

static struct client c;

struct home {
    char *safe, *bundle, *data;
    char provider[64], key[512];
};

static char *text_of(int fd)
{
    off_t len = lseek(fd, 0, SEEK_END);
    char *text = calloc(1, (size_t)len + 1);
    assert_true(len >= 0 && text != NULL);
    assert_int_equal(rs_pread_full(fd, text, (size_t)len, 0), 0);
    return text;
}

static void take(struct home *h, const json_t *answer)
{
    h->safe = strdup(call_text(answer, "keySafe"));
    h->bundle = strdup(call_text(answer, "bundle"));
    (void)snprintf(h->provider, sizeof(h->provider), "%s", call_text(answer, "provider"));
    (void)snprintf(h->key, sizeof(h->key), "%s", call_text(answer, "key"));
}

static struct home seal(json_t *args, const char *lines)
{
    struct home h = {0};
    RS_CLOSE int in = text_fd(lines, strlen(lines)), out = -1;
    json_t *answer = call_works(c.r, "home.seal", args, &in, 1, &out);
    take(&h, answer);
    h.data = text_of(out);
    json_decref(answer);
    return h;
}

static void drop(struct home *h)
{
    free(h->safe);
    free(h->bundle);
    free(h->data);
    *h = (struct home){0};
}

static json_t *texts(const char *safe, const char *bundle)
{
    return json_pack("{s:s, s:s}", "keySafe", safe, "bundle", bundle);
}

static void opens(const struct home *h, const char *lines)
{
    RS_CLOSE int data = text_fd(h->data, strlen(h->data)), out = -1;
    json_t *answer = call_works(c.r, "home.open", texts(h->safe, h->bundle), &data, 1, &out);
    assert_string_equal(call_text(answer, "provider"), h->provider);
    assert_string_equal(call_text(answer, "key"), h->key);
    char *back = text_of(out);
    assert_string_equal(back, lines);
    free(back);
    json_decref(answer);
    RS_CLOSE int again = text_fd(h->data, strlen(h->data));
    json_decref(call_works(c.r, "home.check", texts(h->safe, h->bundle), &again, 1, NULL));
}

static void refused(const char *safe, const char *bundle, const char *data, int code, const char *words)
{
    RS_CLOSE int in = text_fd(data, strlen(data));
    call_refused(c.r, "home.open", texts(safe, bundle), &in, 1, code, words);
    RS_CLOSE int again = text_fd(data, strlen(data));
    call_refused(c.r, "home.check", texts(safe, bundle), &again, 1, code, words);
}

/* ---- what works ------------------------------------------------------------------------- */

static void what_is_sealed_opens(void **state)
{
    (void)state;
    struct home h = seal(json_pack("{s:s}", "provider", "one"), LINES);
    assert_string_equal(h.provider, "one");
    assert_non_null(strstr(h.safe, "vmware:key/list/(pair/(fqid/<VMWARE-NULL>/one/"));
    assert_null(strstr(h.data, "secret"));
    opens(&h, LINES);
    drop(&h);
    /* As large as a .vmx may be. */
    char *large = malloc((2u << 20) + 1);
    assert_non_null(large);
    memset(large, 'x', 2u << 20);
    large[2u << 20] = '\0';
    h = seal(json_pack("{s:s, s:b}", "provider", "one", "new", 1), large);
    opens(&h, large);
    drop(&h);
    free(large);
}

static void another_kek_takes_over(void **state)
{
    (void)state;
    struct home h = seal(json_pack("{s:s}", "provider", "one"), LINES), new = {0};
    json_t *args = texts(h.safe, h.bundle);
    json_object_set_new(args, "provider", json_string("two"));
    json_t *answer = call_works(c.r, "home.rewrap", args, NULL, 0, NULL);
    take(&new, answer);
    json_decref(answer);
    assert_string_equal(new.provider, "two");
    new.data = strdup(h.data); /* stays as it was */
    opens(&new, LINES);
    opens(&h, LINES);
    refused(h.safe, new.bundle, h.data, RESEAL_EFORMAT, "different keys");
    drop(&h);
    drop(&new);
}

/* The keys of the VM's files lie in the bundle: they stay when the home is sealed again. */
static void a_home_that_changes_keeps_its_bundle(void **state)
{
    (void)state;
    struct home h = seal(json_pack("{s:s}", "provider", "one"), LINES);
    struct home again = seal(json_pack("{s:s}", "bundle", h.bundle), "memsize = \"1024\"\n");
    assert_string_equal(again.key, h.key);
    opens(&again, "memsize = \"1024\"\n");
    refused(again.safe, again.bundle, h.data, RESEAL_EAUTH, "does not authenticate");
    struct home moved = seal(json_pack("{s:s, s:s}", "bundle", h.bundle, "provider", "two"), LINES);
    assert_string_equal(moved.provider, "two");
    opens(&moved, LINES);
    drop(&h);
    drop(&again);
    drop(&moved);
}

/* encryption.data for the published key safe, made by what reads it in other tests. */
static char *data_for_published(void)
{
    struct rs_locator *l;
    struct rs_locked_key locker, config;
    uint8_t blob[512], text[512];
    char why[160], *data = calloc(1, 1024);
    size_t len, n;
    assert_int_equal(rs_locator_parse(PUBLISHED_SAFE, strlen(PUBLISHED_SAFE), &l, why, sizeof(why)), 0);
    assert_int_equal(rs_base64_decode(l->child->fields[RS_PAIR_DATA], blob, sizeof(blob), &len), 0);
    assert_int_equal(rs_locked_key_of_phrase(l->child->child->fields[RS_PHRASE_DICTIONARY], PUBLISHED_PHRASE,
                                             strlen(PUBLISHED_PHRASE), &locker),
                     0);
    assert_int_equal(rs_locked_open(&locker, RS_LOCKED_HMAC_SHA1, blob, len, text, &n), 0);
    text[n] = '\0';
    assert_int_equal(rs_locked_key_parse((char *)text, &config), 0);
    assert_int_equal(
        rs_locked_seal(&config, RS_LOCKED_HMAC_SHA1, (const uint8_t *)LINES, strlen(LINES), blob, &len), 0);
    assert_int_equal(rs_base64_encode(blob, len, data, 1024), 0);
    rs_locator_free(l);
    return data;
}

static void a_published_key_safe_opens_by_its_phrase(void **state)
{
    (void)state;
    char *text = data_for_published();
    RS_CLOSE int data = text_fd(text, strlen(text)),
                 right = text_fd(PUBLISHED_PHRASE, strlen(PUBLISHED_PHRASE)),
                 wrong = text_fd("Password124", 11), out = -1;
    int fds[2] = {data, right};
    json_decref(call_works(c.r, "home.phrase", json_pack("{s:s}", "keySafe", PUBLISHED_SAFE), fds, 2, &out));
    char *lines = text_of(out);
    assert_string_equal(lines, LINES);
    free(lines);
    RS_CLOSE int again = text_fd(text, strlen(text));
    fds[0] = again;
    fds[1] = wrong;
    call_refused(c.r, "home.phrase", json_pack("{s:s}", "keySafe", PUBLISHED_SAFE), fds, 2, RESEAL_EPASS,
                 "wrong pass phrase");
    call_refused(c.r, "home.open", json_pack("{s:s}", "keySafe", PUBLISHED_SAFE), fds, 1, RESEAL_ENOKEY,
                 "not locked with a key of a key provider");
    free(text);
}

/* The lines with a disk at that node, locked again; `phrase` NULL: by a key. */
static char *change_disk(const char *safe, const char *bundle, const char *data, const char *phrase,
                         const char *node, const char *file)
{
    RS_CLOSE int in = text_fd(data, strlen(data)),
                 by = text_fd(phrase != NULL ? phrase : "", phrase != NULL ? strlen(phrase) : 0), out = -1;
    const int fds[2] = {in, by};
    json_t *args = texts(safe, bundle);
    json_object_set_new(args, "node", json_string(node));
    if (file != NULL) json_object_set_new(args, "file", json_string(file));
    json_decref(call_works(c.r, "home.disk", args, fds, phrase != NULL ? 2 : 1, &out));
    return text_of(out);
}

static void refuse_disk(const struct home *h, const char *node, const char *file, int status,
                        const char *line)
{
    RS_CLOSE int in = text_fd(h->data, strlen(h->data));
    json_t *args = texts(h->safe, h->bundle);
    json_object_set_new(args, "node", json_string(node));
    if (file != NULL) json_object_set_new(args, "file", json_string(file));
    call_refused(c.r, "home.disk", args, &in, 1, status, line);
}

/* Its lines do not come out, and its keys stay. */
static void a_disk_is_added_and_taken_out(void **state)
{
    (void)state;
    static const char disk[] = "scsi0:2.present = \"TRUE\"\nscsi0:2.fileName = \"a|22b.img\"\n";
    struct home h = seal(json_pack("{s:s}", "provider", "one"), LINES "scsi0.present = \"TRUE\"\n");
    char *more = change_disk(h.safe, h.bundle, h.data, NULL, "scsi0:2", "a\"b.img");
    assert_null(strstr(more, "scsi0"));
    RS_CLOSE int in = text_fd(more, strlen(more)), out = -1;
    json_decref(call_works(c.r, "home.open", texts(h.safe, h.bundle), &in, 1, &out));
    char *lines = text_of(out);
    assert_memory_equal(lines, LINES, strlen(LINES));
    assert_non_null(strstr(lines, disk));
    char *less = change_disk(h.safe, h.bundle, more, NULL, "scsi0:2", NULL);
    RS_CLOSE int again = text_fd(less, strlen(less)), back = -1;
    json_decref(call_works(c.r, "home.open", texts(h.safe, h.bundle), &again, 1, &back));
    char *before = text_of(back);
    assert_string_equal(before, LINES "scsi0.present = \"TRUE\"\n");
    free(before);
    free(less);
    free(lines);

    refuse_disk(&h, "scsi0:7", "a.img", RESEAL_EINVAL, "no disk can be there");
    refuse_disk(&h, "scsi0:1\n", "a.img", RESEAL_EINVAL, "");
    refuse_disk(&h, "scsi0:1", "a\nb = \"c\"", RESEAL_EINVAL, "");
    refuse_disk(&h, "scsi0:2", NULL, RESEAL_EINVAL, "no disk scsi0:2");
    free(h.data);
    h.data = more;
    refuse_disk(&h, "scsi0:2", "other.img", RESEAL_EBUSY, "is taken already");
    h.data[40] = h.data[40] == 'A' ? 'B' : 'A';
    refuse_disk(&h, "scsi0:3", "other.img", RESEAL_EAUTH, "does not authenticate");
    drop(&h);
}

/* One that another product locked, with the MAC of its time. */
static void a_disk_is_added_under_a_published_key_safe(void **state)
{
    (void)state;
    char *text = data_for_published();
    char *more = change_disk(PUBLISHED_SAFE, "", text, PUBLISHED_PHRASE, "nvme0:0", "new.img");
    RS_CLOSE int data = text_fd(more, strlen(more)),
                 phrase = text_fd(PUBLISHED_PHRASE, strlen(PUBLISHED_PHRASE)), out = -1;
    int fds[2] = {data, phrase};
    json_decref(call_works(c.r, "home.phrase", json_pack("{s:s}", "keySafe", PUBLISHED_SAFE), fds, 2, &out));
    char *lines = text_of(out);
    assert_memory_equal(lines, LINES, strlen(LINES));
    assert_non_null(strstr(lines, "nvme0:0.fileName = \"new.img\"\n"));
    free(lines);
    free(more);
    free(text);
}

/* A pass phrase locks a home as a key does; who leaves a key for it, leaves the bundle too. */
static void a_pass_phrase_locks_a_home(void **state)
{
    (void)state;
    RS_CLOSE int lines = text_fd(LINES, strlen(LINES)), phrase = text_fd("tr0ub4dor", 9), out = -1;
    int fds[2] = {lines, phrase};
    json_t *answer = call_works(c.r, "home.seal", json_pack("{s:b}", "phrase", 1), fds, 2, &out);
    char *safe = strdup(call_text(answer, "keySafe")), *data = text_of(out);
    assert_null(json_object_get(answer, "bundle"));
    assert_non_null(strstr(safe, "vmware:key/list/(pair/(phrase/"));
    assert_non_null(strstr(safe, "PBKDF2%2dHMAC%2dSHA%2d256"));
    json_decref(answer);
    RS_CLOSE int sealed = text_fd(data, strlen(data)), right = text_fd("tr0ub4dor", 9), back = -1;
    fds[0] = sealed;
    fds[1] = right;
    json_decref(call_works(c.r, "home.phrase", json_pack("{s:s}", "keySafe", safe), fds, 2, &back));
    char *text = text_of(back);
    assert_string_equal(text, LINES);
    RS_CLOSE int again = text_fd(data, strlen(data)), empty = text_fd("", 0);
    fds[0] = again;
    fds[1] = empty;
    call_refused(c.r, "home.phrase", json_pack("{s:s}", "keySafe", safe), fds, 2, RESEAL_EPASS, "empty");
    free(text);
    free(safe);
    free(data);
}

static void from_a_key_to_a_pass_phrase(void **state)
{
    (void)state;
    struct home h = seal(json_pack("{s:s}", "provider", "one"), LINES);
    RS_CLOSE int phrase = text_fd("tr0ub4dor", 9), right = text_fd("tr0ub4dor", 9), out = -1;
    json_t *args = texts(h.safe, h.bundle);
    json_object_set_new(args, "phrase", json_true());
    json_t *answer = call_works(c.r, "home.rewrap", args, &phrase, 1, NULL);
    assert_null(json_object_get(answer, "bundle"));
    RS_CLOSE int data = text_fd(h.data, strlen(h.data)); /* stays as it was */
    const int fds[2] = {data, right};
    args = json_pack("{s:s}", "keySafe", call_text(answer, "keySafe"));
    json_decref(call_works(c.r, "home.phrase", args, fds, 2, &out));
    char *text = text_of(out);
    assert_string_equal(text, LINES);
    free(text);
    json_decref(answer);
    /* Half a request is none. */
    args = texts(h.safe, h.bundle);
    json_object_set_new(args, "phrase", json_true());
    call_refused(c.r, "home.rewrap", args, NULL, 0, RESEAL_EINVAL, "phrase: true");
    call_refused(c.r, "home.rewrap", texts(h.safe, h.bundle), &phrase, 1, RESEAL_EINVAL, "phrase: true");
    args = texts(h.safe, h.bundle);
    json_object_set_new(args, "phrase", json_true());
    json_object_set_new(args, "provider", json_string("two"));
    call_refused(c.r, "home.rewrap", args, &phrase, 1, RESEAL_EINVAL, "no provider");
    drop(&h);
}

/* ---- what does not ------------------------------------------------------------------------ */

static void changed_texts_are_refused(void **state)
{
    (void)state;
    struct home h = seal(json_pack("{s:s}", "provider", "one"), LINES);
    struct home other = seal(json_pack("{s:s}", "provider", "one"), LINES);
    refused(h.safe, h.bundle, other.data, RESEAL_EAUTH, "of another VM");
    refused(h.safe, h.bundle, "", RESEAL_EFORMAT, "encryption.data is empty");
    refused(h.safe, h.bundle, "AAAA*", RESEAL_EFORMAT, "no base64");
    refused("vmware:key/list/(", h.bundle, h.data, RESEAL_EFORMAT, "encryption.keySafe");
    refused(h.safe, "vmware:key/list/(", h.data, RESEAL_EFORMAT, "encryption.bundle");
    refused("", h.bundle, h.data, RESEAL_EINVAL, "keySafe");
    /* Every part of the data counts. */
    size_t len = strlen(h.data);
    for (size_t at = 0; at + 4 < len; at += len / 6) {
        char *changed = strdup(h.data);
        changed[at] = changed[at] == 'A' ? 'B' : 'A';
        refused(h.safe, h.bundle, changed, RESEAL_EAUTH, "does not authenticate");
        free(changed);
    }
    char *torn = strndup(h.data, len / 2 & ~(size_t)3);
    refused(h.safe, h.bundle, torn, strlen(torn) < 88 ? RESEAL_EFORMAT : RESEAL_EAUTH, "");
    free(torn);
    drop(&h);
    drop(&other);
}

static void keys_that_are_gone_are_named(void **state)
{
    (void)state;
    struct home h = seal(json_pack("{s:s}", "provider", "one"), LINES);
    static const char gone[] = "vmware:key/list/(pair/(fqid/<VMWARE-NULL>/nowhere/k,HMAC%2dSHA%2d256,AAAA))";
    static const char unknown[] = "vmware:key/list/(pair/(fqid/<VMWARE-NULL>/one/k,HMAC%2dSHA%2d256,AAAA))";
    refused(gone, "", h.data, RESEAL_ENOKEY, "nowhere");
    refused(unknown, "", h.data, RESEAL_ENOKEY, "one");
    drop(&h);
}

static int start(void **state)
{
    (void)state;
    client_require_service();
    client_start(&c);
    call_native_provider(c.r, "one");
    call_native_provider(c.r, "two");
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
        cmocka_unit_test(what_is_sealed_opens),
        cmocka_unit_test(another_kek_takes_over),
        cmocka_unit_test(a_home_that_changes_keeps_its_bundle),
        cmocka_unit_test(a_published_key_safe_opens_by_its_phrase),
        cmocka_unit_test(a_disk_is_added_and_taken_out),
        cmocka_unit_test(a_disk_is_added_under_a_published_key_safe),
        cmocka_unit_test(a_pass_phrase_locks_a_home),
        cmocka_unit_test(from_a_key_to_a_pass_phrase),
        cmocka_unit_test(changed_texts_are_refused),
        cmocka_unit_test(keys_that_are_gone_are_named),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, start, stop);
}
