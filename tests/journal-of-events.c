/* SPDX-License-Identifier: Apache-2.0 */
/* Journals number their lines, keep the last of them, cut texts of others, and go on after a restart. Their
 * files are read as far back as they are kept; who writes without end loses lines of his own only. */
#include "offload/base/keymem.h"
#include "providers/key/journal-kept.h"
#include "providers/key/journal.h"
#include "providers/key/store.h"
#include "tests/support/cmocka.h"
#include "tests/support/keyd.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct rs_journal j = {.name = "events.jsonl", .what = "operation", .owner = "\"uid\":", .fd = -1};

static int setup(void **state)
{
    (void)state;
    rs_journal_empty(&j, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rs_journal_empty(&j, 0);
    return 0;
}

static json_t *line_at(uint64_t n)
{
    const struct rs_journal_line *line = &j.ring[n % RS_JOURNAL_RING];
    assert_non_null(line->text);
    assert_int_equal(line->text[line->len - 1], '\n');
    assert_int_equal(strlen(line->text), line->len);
    return json_loadb(line->text, line->len, 0, NULL);
}

static void the_last_lines_stay(void **state)
{
    (void)state;
    for (unsigned i = 1; i <= RS_JOURNAL_RING + 10; i++) {
        struct rs_journal_line line = {.what = "x"};
        assert_true(rs_journal_write(&j, NULL, &line, json_pack("{s:i}", "value", i)));
    }
    assert_int_equal(j.last, RS_JOURNAL_RING + 10);
    assert_int_equal(j.first, 11);
    for (uint64_t n = j.first; n <= j.last; n++) {
        json_t *line = line_at(n);
        assert_int_equal(json_integer_value(json_object_get(line, "n")), n);
        assert_int_equal(json_integer_value(json_object_get(line, "value")), n);
        const char *when = json_string_value(json_object_get(line, "time"));
        assert_int_equal(strlen(when), 24);
        assert_int_equal(when[23], 'Z');
        json_decref(line);
    }
}

static void texts_are_cut_and_clean(void **state)
{
    (void)state;
    char text[400];
    memset(text, 'a', sizeof(text));
    memcpy(text + 255, "\xc3\xa4", 2); /* a character of two bytes across the limit */
    text[3] = '\n';
    text[4] = '\x1b';
    text[sizeof(text) - 1] = '\0';
    json_t *cut = rs_journal_text(text, RS_JOURNAL_TEXT);
    assert_int_equal(json_string_length(cut), 255);
    assert_memory_equal(json_string_value(cut), "aaa??a", 6);
    json_decref(cut);
    json_t *bad = rs_journal_text("x\xff\xfey", RS_JOURNAL_TEXT);
    assert_string_equal(json_string_value(bad), "x??y");
    json_decref(bad);
    json_t *whole = rs_journal_text("caf\xc3\xa9", RS_JOURNAL_TEXT);
    assert_string_equal(json_string_value(whole), "caf\xc3\xa9");
    json_decref(whole);
}

static void details_are_cleaned_at_every_depth(void **state)
{
    (void)state;
    json_t *dirty = json_pack("{s:s, s:[s, i], s:{s:{s:{s:{s:s}}}}}", "a", "b\nc", "list", "d\te", 7, "1",
                              "2", "3", "4", "5", "too deep");
    json_t *clean = rs_journal_details(dirty, 0);
    char *text = json_dumps(clean, JSON_COMPACT);
    assert_string_equal(text, "{\"a\":\"b?c\",\"list\":[\"d?e\",7],\"1\":{\"2\":{\"3\":{}}}}");
    free(text);
    json_decref(dirty);
    json_decref(clean);
}

static void a_line_that_is_too_long_loses_its_details(void **state)
{
    (void)state;
    struct rs_journal_line line = {.what = "x"};
    json_t *details = json_object();
    char text[257];
    memset(text, 'z', 256);
    text[256] = '\0';
    for (char name[2] = "a"; name[0] <= 'z'; name[0]++)
        (void)json_object_set_new(details, name, json_string(text));
    assert_true(rs_journal_write(&j, NULL, &line, json_pack("{s:s, s:o}", "id", "x", "details", details)));
    json_t *got = line_at(1);
    assert_string_equal(json_string_value(json_object_get(got, "id")), "x");
    assert_true(json_is_true(json_object_get(json_object_get(got, "details"), "left_out")));
    json_decref(got);
}

/* ---- files ----------------------------------------------------------------------------------------- */

#define KEEP   (1u << 20) /* closed at 64 KiB each */
#define RARELY 500u       /* of so many lines one is another user's */

static char folder[64];
static struct rs_store *store;

static int open_store(void **state)
{
    char why[256];
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/reseal-journal-XXXXXX");
    if (rs_keymem_init(0) != 0 || mkdtemp(folder) == NULL ||
        rs_store_open(folder, NULL, &store, why, sizeof(why)) != 0)
        return 1;
    rs_journal_empty(&j, 0);
    j.keep = KEEP;
    j.dropped = 0;
    return 0;
}

static int close_store(void **state)
{
    (void)state;
    rs_journal_close(&j);
    rs_store_close(store);
    return RUN("rm", "-rf", folder);
}

static void write_line(unsigned uid, unsigned value)
{
    struct rs_journal_line line = {.what = "x", .uid = uid};
    assert_true(
        rs_journal_write(&j, store, &line,
                         json_pack("{s:i, s:i, s:s, s:s}", "uid", uid, "value", value, "operation", "x",
                                   "object", "raw:\\\",\"uid\":7, of somebody who would like it")));
}

struct seen {
    uint64_t last;
    unsigned of[3], lines, at_most;
};

static void see(struct seen *s, const char *text, size_t len)
{
    struct rs_journal_line line;
    json_t *object = rs_journal_parse(&j, text, len, &line);
    assert_non_null(object);
    uint64_t n = (uint64_t)json_integer_value(json_object_get(object, "n"));
    assert_true(n > s->last);
    s->last = n;
    assert_in_range(line.uid, 1, 2);
    s->of[line.uid]++;
    s->lines++;
    json_decref(object);
}

static bool see_some(void *arg, const char *text, size_t len)
{
    struct seen *s = arg;
    see(s, text, len);
    return s->lines % s->at_most != 0;
}

/* All lines after a number, as audit.list pages through them. */
static struct seen all_after(uint64_t after)
{
    struct seen s = {.last = after, .at_most = 100};
    uint64_t at = after;
    for (unsigned i = 0; at + 1 < j.first; i++) {
        uint64_t next = rs_journal_look(&j, store, at, see_some, &s);
        assert_true(next > at && i < 10000);
        at = next;
    }
    for (; at < j.last; at++)
        see(&s, j.ring[(at + 1) % RS_JOURNAL_RING].text, j.ring[(at + 1) % RS_JOURNAL_RING].len);
    return s;
}

static void files_are_read_as_far_back_as_they_go(void **state)
{
    (void)state;
    for (unsigned i = 1; i <= 4000; i++) write_line(1 + i % 2, i);
    assert_int_equal(j.dropped, 0);
    assert_true(j.nclosed > 2 && j.first > 2000);
    struct seen s = all_after(0);
    assert_int_equal(s.lines, 4000);
    assert_int_equal(all_after(1234).lines, 4000 - 1234);
    assert_int_equal(all_after(j.closed[1].first - 1).lines, 4000 - j.closed[1].first + 1);
    assert_int_equal(all_after(j.closed[1].first).lines, 4000 - j.closed[1].first);
    /* Another one reads the same, and goes on. */
    rs_journal_close(&j);
    char left[RS_JOURNAL_NAME + 80]; /* by a crash */
    (void)snprintf(left, sizeof(left), "%s/%s.%020u.new", folder, j.name, 1u);
    assert_int_equal(RUN("touch", left), 0);
    rs_journal_read(&j, store);
    assert_int_equal(access(left, F_OK), -1);
    assert_int_equal(j.last, 4000);
    assert_int_equal(all_after(0).lines, 4000);
    write_line(1, 0);
    assert_int_equal(all_after(0).last, 4001);
}

static uint64_t bytes_on_disk(void)
{
    uint64_t n = j.file_bytes;
    for (unsigned i = 0; i < j.nclosed; i++) n += j.closed[i].bytes;
    return n;
}

static void who_writes_without_end_loses_his_own_lines(void **state)
{
    (void)state;
    unsigned own = 0;
    for (unsigned i = 0; i < 100; i++, own++) write_line(1, i);
    for (unsigned i = 0; i < 12000; i++) {
        bool rare = i % RARELY == 0;
        own += rare;
        write_line(rare ? 1 : 2, i);
        assert_true(bytes_on_disk() <= KEEP);
    }
    struct seen s = all_after(0);
    assert_int_equal(s.of[1], own);
    assert_true(s.of[2] > 3000 && s.of[2] < 12000);
    assert_int_equal(s.lines + j.dropped, 12100);
    assert_string_equal(j.dropped_of, "2");
    assert_true(j.nclosed < 40);
    /* The newest are there, and after a restart it goes on as before. */
    rs_journal_close(&j);
    rs_journal_read(&j, store);
    while (rs_journal_kept_count(&j, store)) continue;
    s = all_after(0);
    assert_int_equal(s.of[1], own);
    for (unsigned i = 0; i < 3000; i++) {
        write_line(2, i);
        assert_true(bytes_on_disk() <= KEEP);
    }
    s = all_after(0);
    assert_int_equal(s.of[1], own);
    assert_int_equal(s.last, 15100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_last_lines_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(texts_are_cut_and_clean, setup, teardown),
        cmocka_unit_test_setup_teardown(details_are_cleaned_at_every_depth, setup, teardown),
        cmocka_unit_test_setup_teardown(a_line_that_is_too_long_loses_its_details, setup, teardown),
        cmocka_unit_test_setup_teardown(files_are_read_as_far_back_as_they_go, open_store, close_store),
        cmocka_unit_test_setup_teardown(who_writes_without_end_loses_his_own_lines, open_store, close_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
