/* SPDX-License-Identifier: Apache-2.0 */
/* Journals number their lines, keep the last of them, cut texts of others, and go on after a restart. */
#include "providers/key/journal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct rs_journal j = {.name = "events.jsonl", .fd = -1};

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_last_lines_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(texts_are_cut_and_clean, setup, teardown),
        cmocka_unit_test_setup_teardown(details_are_cleaned_at_every_depth, setup, teardown),
        cmocka_unit_test_setup_teardown(a_line_that_is_too_long_loses_its_details, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
