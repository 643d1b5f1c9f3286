/* SPDX-License-Identifier: Apache-2.0 */
/* .vmx files: what is read is written as it was; what is torn or empty is refused. */
#include "offload/vm/vmx.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"

#include <stdlib.h>

static const char file[] = ".encoding = \"UTF-8\"\n"
                           "# a comment\n"
                           "\n"
                           "displayName = \"a |22name|22 with |7C\"\n"
                           "scsi0:0.fileName = \"disk.vmdk\"\n"
                           "encryption.keySafe = \"vmware:key/list/(null/x)\"\n";

static struct rs_vmx *parse(const char *text)
{
    struct rs_vmx *v;
    char why[160] = "";
    if (rs_vmx_parse(text, strlen(text), &v, why, sizeof(why)) != 0) fail_msg("%s", why);
    return v;
}

static void assert_text(const struct rs_vmx *v, const char *want)
{
    size_t len;
    char *text = rs_vmx_text(v, &len);
    assert_non_null(text);
    assert_string_equal(text, want);
    assert_int_equal(len, strlen(want));
    free(text);
}

static void test_a_file_is_written_as_it_was(void **state)
{
    struct rs_vmx *v = parse(file);
    (void)state;
    assert_string_equal(rs_vmx_get(v, "DISPLAYNAME"), "a \"name\" with |");
    assert_string_equal(rs_vmx_get(v, "scsi0:0.filename"), "disk.vmdk");
    assert_null(rs_vmx_get(v, "nothing"));
    assert_text(v, file);
    rs_vmx_free(v);
}

static void test_one_line_changes(void **state)
{
    struct rs_vmx *v = parse("a = \"1\"\n# here\nb = \"2\"\nB = \"3\"\n");
    (void)state;
    assert_string_equal(rs_vmx_get(v, "b"), "3");
    assert_int_equal(rs_vmx_set(v, "A", "one\n\"|\x7f"), 0);
    assert_int_equal(rs_vmx_set(v, "c", ""), 0);
    assert_text(v, "a = \"one|0A|22|7C|7F\"\n# here\nb = \"2\"\nB = \"3\"\nc = \"\"\n");
    assert_true(rs_vmx_remove(v, "b"));
    assert_false(rs_vmx_remove(v, "b"));
    assert_text(v, "a = \"one|0A|22|7C|7F\"\n# here\nc = \"\"\n");
    assert_int_equal(rs_vmx_set(v, "no name", "x"), RESEAL_EINVAL);
    assert_int_equal(rs_vmx_set(v, "", "x"), RESEAL_EINVAL);
    rs_vmx_free(v);
}

static void test_other_editors_files(void **state)
{
    static const char text[] = "  a=\"1\"\r\nb\t=\t\"2\"   # why\r\nlast = \"3\"";
    struct rs_vmx *v = parse(text);
    (void)state;
    assert_text(v, text);
    assert_string_equal(rs_vmx_get(v, "a"), "1");
    assert_string_equal(rs_vmx_get(v, "b"), "2");
    assert_string_equal(rs_vmx_get(v, "last"), "3");
    assert_int_equal(rs_vmx_set(v, "b", "2"), 0); /* what it is already */
    assert_int_equal(rs_vmx_set(v, "a", "4"), 0);
    assert_int_equal(rs_vmx_set(v, "new", "5"), 0);
    assert_text(v, "a = \"4\"\r\nb\t=\t\"2\"   # why\r\nlast = \"3\"\nnew = \"5\"\r");
    assert_true(rs_vmx_remove(v, "new"));
    assert_text(v, "a = \"4\"\r\nb\t=\t\"2\"   # why\r\nlast = \"3\"");
    rs_vmx_free(v);
}

static void test_a_byte_order_mark_stays(void **state)
{
    static const char text[] = "\xef\xbb\xbf.encoding = \"UTF-8\"\n";
    struct rs_vmx *v = parse(text);
    (void)state;
    assert_string_equal(rs_vmx_get(v, ".encoding"), "UTF-8");
    assert_text(v, text);
    rs_vmx_free(v);
    char why[160];
    assert_int_equal(rs_vmx_parse("\xef\xbb\xbf", 3, &v, why, sizeof(why)), RESEAL_EFORMAT);
}

static void test_what_is_no_vmx_file(void **state)
{
    static const struct {
        const char *text;
        size_t len;
    } bad[] = {
        {"", 0},
        {"\n\n", 2},
        {"# only a comment\n", 17},
        {"\0\0\0\0\0\0\0\0", 8}, /* what a crash leaves of a file */
        {"a = \"1\"\n\0\0\0", 11},
        {"a", 1},
        {"a =", 3},
        {"a = 1", 5},
        {"a = \"1", 6},
        {"a = \"1\" 2", 9},
        {"a = \"|\"", 7},
        {"a = \"|4\"", 8},
        {"a = \"|4g\"", 9},
        {"a = \"|00\"", 9},
        {"= \"1\"", 5},
        {"a b = \"1\"", 9},
    };
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(bad); i++) {
        struct rs_vmx *v;
        char why[160] = "";
        assert_int_equal(rs_vmx_parse(bad[i].text, bad[i].len, &v, why, sizeof(why)), RESEAL_EFORMAT);
        assert_true(why[0] != '\0' && strchr(why, '\n') == NULL);
        assert_null(v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_file_is_written_as_it_was), cmocka_unit_test(test_one_line_changes),
        cmocka_unit_test(test_other_editors_files),         cmocka_unit_test(test_a_byte_order_mark_stays),
        cmocka_unit_test(test_what_is_no_vmx_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
