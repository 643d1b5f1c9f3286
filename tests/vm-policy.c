/* SPDX-License-Identifier: Apache-2.0 */
/* Storage policies: what is taken, what is refused with its line, how one is found. */
#include "offload/vm/policy.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define CAPABILITY                                                                                           \
    "\"capabilities\": [{\"namespace\": \"vmwarevmcrypt\", \"id\": \"vmwarevmcrypt@ENCRYPTION\","            \
    " \"properties\": {\"AllowCleartextFilters\": true}}]"

static int parse(const char *text, struct rs_vm_policy *p, char why[256])
{
    why[0] = '\0';
    return rs_vm_policy_parse(text, strlen(text), p, why, 256);
}

static void a_policy_encrypts_by_its_capability(void **state)
{
    (void)state;
    struct rs_vm_policy p;
    char why[256];
    assert_int_equal(parse("{\"name\": \"a\"}", &p, why), 0);
    assert_false(p.encrypts);
    assert_int_equal(parse("{\"name\": \"a\", " CAPABILITY "}", &p, why), 0);
    assert_true(p.encrypts && p.allows_cleartext_filters);
    assert_string_equal(p.format, "luks2");
    assert_int_equal(p.unit, 4096);
    assert_int_equal(p.key_bits, 256);
    /* Those of other namespaces are for others. */
    assert_int_equal(
        parse("{\"name\": \"a\", \"capabilities\": [{\"namespace\": \"VSAN\", \"id\": \"x\"}]}", &p, why), 0);
    assert_false(p.encrypts);
}

static void what_is_wrong_is_said(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"", "line"},
        {"[]", "no JSON object"},
        {"{\"name\": \"\"}", "name"},
        {"{\"name\": \"a\", \"color\": 1}", "color"},
        {"{\"name\": \"a\", \"name\": \"b\"}", "duplicate"},
        {"{\"name\": \"a\", \"disk\": {\"unit\": 3000}}", "unit"},
        {"{\"name\": \"a\", \"disk\": {\"unit\": 8192}}", "unit"},
        {"{\"name\": \"a\", \"disk\": {\"unit\": -1}}", "unit"},
        {"{\"name\": \"a\", \"disk\": {\"format\": \"luks3\"}}", "format"},
        {"{\"name\": \"a\", \"disk\": {\"format\": \"luks1\", \"unit\": 4096}}", "unit"},
        {"{\"name\": \"a\", \"disk\": {\"key-bits\": 192}}", "key-bits"},
        {"{\"name\": \"a\", \"disk\": {\"speed\": 1}}", "speed"},
        {"{\"name\": \"a\", \"disk\": []}", "disk"},
        {"{\"name\": \"a\", \"capabilities\": 1}", "capabilities"},
        {"{\"name\": \"a\", \"capabilities\": [1]}", "capability"},
        {"{\"name\": \"a\", \"capabilities\": [{\"namespace\": \"vmwarevmcrypt\", \"id\": \"x\"}]}", "known"},
        {"{\"name\": \"a\\u0007b\"}", "name"},
    };
    for (unsigned i = 0; i < RS_ARRAY_LEN(bad); i++) {
        struct rs_vm_policy p;
        char why[256];
        assert_int_equal(parse(bad[i][0], &p, why), RESEAL_EFORMAT);
        if (strstr(why, bad[i][1]) == NULL) fail_msg("%s: \"%s\" has no '%s'", bad[i][0], why, bad[i][1]);
    }
}

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void one_is_found_by_name_or_id(void **state)
{
    (void)state;
    char folder[] = "/tmp/reseal-policies-XXXXXX", why[512];
    struct rs_vm_policy p;
    assert_non_null(mkdtemp(folder));
    write_file(folder, "gold.json", "{\"name\": \"Gold\", \"id\": \"42\", \"provider\": \"vault\"}");
    write_file(folder, "notes.txt", "no policy");
    assert_int_equal(rs_vm_policy_find(folder, "Gold", &p, why, sizeof(why)), 0);
    assert_string_equal(p.provider, "vault");
    assert_int_equal(rs_vm_policy_find(folder, "42", &p, why, sizeof(why)), 0);
    assert_string_equal(p.name, "Gold");
    assert_int_equal(rs_vm_policy_find(folder, RS_VM_POLICY_SAMPLE, &p, why, sizeof(why)), 0);
    assert_true(p.encrypts);
    assert_false(p.allows_cleartext_filters);
    assert_int_equal(rs_vm_policy_find(folder, "Silver", &p, why, sizeof(why)), RESEAL_ENOKEY);
    assert_non_null(strstr(why, "\"Silver\""));
    assert_non_null(strstr(why, "\"Gold\""));
    write_file(folder, "gold.json", "{\"name\"");
    assert_int_equal(rs_vm_policy_find(folder, "Gold", &p, why, sizeof(why)), RESEAL_EFORMAT);
    assert_non_null(strstr(why, "gold.json"));
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/gold.json", folder);
    (void)unlink(path);
    (void)snprintf(path, sizeof(path), "%s/notes.txt", folder);
    (void)unlink(path);
    (void)rmdir(folder);
    assert_int_equal(rs_vm_policy_find("/nonexistent/policies", RS_VM_POLICY_SAMPLE, &p, why, sizeof(why)),
                     0);
}

static void the_sample_that_is_shipped_is_the_built_in_one(void **state)
{
    (void)state;
    char folder[512], why[512];
    struct rs_vm_policy p, q;
    const char *source = getenv("RESEAL_SOURCE");
    if (source == NULL) skip();
    (void)snprintf(folder, sizeof(folder), "%s/docs/examples/storage-policies", source);
    assert_int_equal(rs_vm_policy_find(folder, RS_VM_POLICY_SAMPLE, &p, why, sizeof(why)), 0);
    assert_int_equal(rs_vm_policy_find("/nonexistent", RS_VM_POLICY_SAMPLE, &q, why, sizeof(why)), 0);
    assert_string_equal(p.id, q.id);
    assert_int_equal(p.encrypts, q.encrypts);
    assert_int_equal(p.unit, q.unit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_policy_encrypts_by_its_capability),
        cmocka_unit_test(what_is_wrong_is_said),
        cmocka_unit_test(one_is_found_by_name_or_id),
        cmocka_unit_test(the_sample_that_is_shipped_is_the_built_in_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
