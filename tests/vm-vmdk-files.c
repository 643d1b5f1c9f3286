/* SPDX-License-Identifier: Apache-2.0 */
/* VMDK descriptors as others may write them: what lies elsewhere, is no file, or does not fit is told in one
 * line. */
#include "offload/vm/disk.h"
#include "offload/vm/vmdk.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCATOR "vmware:key/list/(pair/(fqid/<VMWARE-NULL>/p/k,x,y))"
#define HEAD    "# Disk DescriptorFile\nversion=1\n"

static char dir[64];

static void in_dir(const char *name, char out[PATH_MAX])
{
    (void)snprintf(out, PATH_MAX, "%s/%s", dir, name);
}

static void write_text(const char *name, const char *text, off_t size)
{
    char path[PATH_MAX];
    in_dir(name, path);
    RS_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(rs_write_full(fd, text, strlen(text)), 0);
    if (size != 0) assert_int_equal(ftruncate(fd, size), 0);
}

static int look(const char *text, struct rs_disk *d, char *why, size_t why_len)
{
    *d = (struct rs_disk){.format = RS_DISK_RAW};
    write_text("disk.vmdk", text, 0);
    in_dir("disk.vmdk", d->path);
    return rs_disk_look(d, why, why_len);
}

static void works(const char *text, uint64_t offset, uint64_t size)
{
    struct rs_disk d;
    char why[512] = "";
    if (look(text, &d, why, sizeof(why)) != 0) fail_msg("%s: %s", text, why);
    assert_int_equal(d.format, RS_DISK_VMDK);
    assert_int_equal(d.data_offset, offset);
    assert_int_equal(d.size, size);
}

static void refused(const char *text, int code, const char *words)
{
    struct rs_disk d;
    char why[512] = "";
    int got = look(text, &d, why, sizeof(why));
    if (got != code) fail_msg("%d, not %d: %s (%s)", got, code, text, why);
    if (strstr(why, words) == NULL) fail_msg("'%s' does not say '%s'", why, words);
    assert_null(strchr(why, '\n'));
}

static void extents_that_are_read(void **state)
{
    (void)state;
    works(HEAD "RW 8 FLAT \"flat\" 0\n", 0, 4096);
    works(HEAD "RW 8 FLAT \"flat\"\n", 0, 4096);
    works(HEAD "RW 8 VMFS \"flat\"\r\n", 0, 4096);
    works(HEAD "RW 7 FLAT \"flat\" 1 \r\n", 512, 3584);
    works(HEAD "RW  8\tFLAT  \"a name with blanks\"\t0\n", 0, 4096);
}

static void extents_that_are_elsewhere(void **state)
{
    (void)state;
    refused(HEAD "RW 8 FLAT \"../flat\" 0\n", RESEAL_ENOSUPPORT, "../flat is in another folder");
    refused(HEAD "RW 8 FLAT \"/etc/passwd\" 0\n", RESEAL_ENOSUPPORT, "in another folder");
    refused(HEAD "RW 8 FLAT \"sub/flat\" 0\n", RESEAL_ENOSUPPORT, "in another folder");
    refused(HEAD "RW 8 FLAT \"link\" 0\n", RESEAL_ENOSUPPORT, "link is a symbolic link");
    refused(HEAD "RW 8 FLAT \"dangling\" 0\n", RESEAL_ENOSUPPORT, "symbolic link");
    refused(HEAD "RW 8 FLAT \"pipe\" 0\n", RESEAL_ENOSUPPORT, "no file");
    refused(HEAD "RW 8 FLAT \"..\" 0\n", RESEAL_ENOSUPPORT, "no file");
    refused(HEAD "RW 8 FLAT \"disk.vmdk\" 0\n", RESEAL_EFORMAT, "the descriptor itself");
    refused(HEAD "RW 8 FLAT \"hard\" 0\n", RESEAL_EFORMAT, "the descriptor itself");
    refused(HEAD "RW 8 FLAT \"gone\" 0\n", RESEAL_EIO, "gone");
}

static void sizes_that_do_not_fit(void **state)
{
    (void)state;
    refused(HEAD "RW 9 FLAT \"flat\" 0\n", RESEAL_EFORMAT, "truncated");
    refused(HEAD "RW 8 FLAT \"flat\" 1\n", RESEAL_EFORMAT, "truncated");
    refused(HEAD "RW 0 FLAT \"flat\" 0\n", RESEAL_EFORMAT, "size in its extent line is out of range");
    static const char *const numbers[] = {"18014398509481984", /* 2^63 bytes */
                                          "36028797018963968",
                                          "36028797018963976", /* 2^64 bytes, and 4096 more */
                                          "18446744073709551615",
                                          "18446744073709551624", /* 2^64 sectors and 8 */
                                          "99999999999999999999999999999999",
                                          "-1",
                                          "-18446744073709551608",
                                          "0x8"};
    for (unsigned i = 0; i < RS_ARRAY_LEN(numbers); i++) {
        char text[256];
        (void)snprintf(text, sizeof(text), HEAD "RW %s FLAT \"flat\" 0\n", numbers[i]);
        refused(text, RESEAL_EFORMAT, "size in its extent line");
        (void)snprintf(text, sizeof(text), HEAD "RW 8 FLAT \"flat\" %s\n", numbers[i]);
        refused(text, RESEAL_EFORMAT, "offset in its extent line is out of range");
    }
    /* Each fits by itself. */
    refused(HEAD "RW 18014398509481983 FLAT \"flat\" 18014398509481983\n", RESEAL_EFORMAT, "truncated");
}

static void lines_that_are_no_extents(void **state)
{
    (void)state;
    char text[3000], name[1100];
    refused(HEAD, RESEAL_EFORMAT, "names no extent");
    refused(HEAD "RW 8 FLAT \"flat\" 0\nRW 8 FLAT \"flat\" 0\n", RESEAL_ENOSUPPORT, "several extents");
    refused(HEAD "RDONLY 8 FLAT \"flat\" 0\n", RESEAL_ENOSUPPORT, "only RW");
    refused(HEAD "RW 8 SPARSE \"flat\"\n", RESEAL_ENOSUPPORT, "kind SPARSE");
    refused(HEAD "RW 8 ZERO\n", RESEAL_ENOSUPPORT, "kind ZERO");
    refused(HEAD "RW 8 \"flat\" 0\n", RESEAL_EFORMAT, "cannot be read");
    refused(HEAD "RW 8 FLAT flat 0\n", RESEAL_EFORMAT, "name");
    refused(HEAD "RW 8 FLAT \"flat 0\n", RESEAL_EFORMAT, "name");
    refused(HEAD "RW 8 FLAT \"\" 0\n", RESEAL_EFORMAT, "name");
    refused(HEAD "RW 8 FLAT \"flat\" 0 more\n", RESEAL_EFORMAT, "offset");
    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    (void)snprintf(text, sizeof(text), HEAD "RW 8 FLAT \"%s\" 0\n", name);
    refused(text, RESEAL_EFORMAT, "name");
    name[300] = '\0';
    (void)snprintf(text, sizeof(text), HEAD "RW 8 FLAT \"%s\" 0\n", name);
    refused(text, RESEAL_EIO, "File name too long");
}

static void keys_that_are_none(void **state)
{
    (void)state;
    refused(HEAD "RW 8 FLAT \"flat\" 0\nencryptionKeys=\"nothing\"\n", RESEAL_EFORMAT, "no key locator");
    refused(HEAD "RW 8 FLAT \"flat\" 0\nencryptionKeys=\"" LOCATOR "\"\n", RESEAL_ENOSUPPORT,
            "by another program");
}

static void texts_that_are_no_descriptors(void **state)
{
    (void)state;
    enum { ROOM = 300 << 10 };
    char *text = malloc(ROOM);
    assert_non_null(text);
    char *end = stpcpy(text, HEAD "RW 8 FLAT \"flat\" 0\n");
    size_t start = (size_t)(end - text);
    memset(end, '\n', ROOM - start);
    text[start + 5000] = '\0';
    refused(text, RESEAL_EFORMAT, "too many lines");
    memset(end, '#', ROOM - start);
    text[ROOM - 1] = '\0';
    refused(text, RESEAL_EFORMAT, "too large");
    memcpy(end, "parentFileNameHint=\"", 20);
    text[start + 5000] = '\0';
    refused(text, RESEAL_EFORMAT, "parent is too long");
    free(text);
    refused("KDMV", RESEAL_ENOSUPPORT, "sparse VMDK");
}

static void a_nul_byte_in_a_descriptor(void **state)
{
    (void)state;
    static const char text[] = HEAD "RW 8 FLAT \"flat\" 0\n\0RW 8 FLAT \"flat\" 0\n";
    struct rs_vmdk *v = NULL;
    char why[256] = "";
    assert_int_equal(rs_vmdk_parse(text, sizeof(text) - 1, &v, why, sizeof(why)), RESEAL_EFORMAT);
    assert_non_null(strstr(why, "NUL"));
    assert_null(v);
}

/* One that can be looked at for ever. */
static void a_header_that_is_no_file(void **state)
{
    (void)state;
    char path[PATH_MAX];
    in_dir("disk.vmdk" RS_DISK_HEADER, path);
    assert_int_equal(mkfifo(path, 0600), 0);
    refused(HEAD "RW 8 FLAT \"flat\" 0\nencryptionKeys=\"" LOCATOR "\"\n", RESEAL_EFORMAT, "is no file");
    assert_int_equal(unlink(path), 0);
    write_text("disk.vmdk" RS_DISK_HEADER, "no header", 0);
    refused(HEAD "RW 8 FLAT \"flat\" 0\nencryptionKeys=\"" LOCATOR "\"\n", RESEAL_EFORMAT, "no LUKS header");
    assert_int_equal(unlink(path), 0);
}

static int make_files(void **state)
{
    (void)state;
    char path[PATH_MAX], other[PATH_MAX];
    (void)snprintf(dir, sizeof(dir), "/tmp/reseal-test-XXXXXX");
    if (mkdtemp(dir) == NULL) return -1;
    write_text("flat", "", 4096);
    write_text("a name with blanks", "", 4096);
    write_text("disk.vmdk", HEAD, 0);
    in_dir("link", path);
    if (symlink("flat", path) != 0) return -1;
    in_dir("dangling", path);
    if (symlink("nowhere", path) != 0) return -1;
    in_dir("pipe", path);
    if (mkfifo(path, 0600) != 0) return -1;
    in_dir("disk.vmdk", other);
    in_dir("hard", path);
    return link(other, path);
}

static int remove_files(void **state)
{
    static const char *const names[] = {"flat", "a name with blanks", "disk.vmdk", "link", "dangling", "pipe",
                                        "hard"};
    char path[PATH_MAX];
    (void)state;
    for (unsigned i = 0; i < RS_ARRAY_LEN(names); i++) {
        in_dir(names[i], path);
        (void)unlink(path);
    }
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(extents_that_are_read),
        cmocka_unit_test(extents_that_are_elsewhere),
        cmocka_unit_test(sizes_that_do_not_fit),
        cmocka_unit_test(lines_that_are_no_extents),
        cmocka_unit_test(keys_that_are_none),
        cmocka_unit_test(a_header_that_is_no_file),
        cmocka_unit_test(texts_that_are_no_descriptors),
        cmocka_unit_test(a_nul_byte_in_a_descriptor),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
