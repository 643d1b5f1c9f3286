/* SPDX-License-Identifier: Apache-2.0 */
/* The state folder: an object is the old one or the new one whatever happens, and what is sealed opens only
 * as it was. */
#include "offload/base/keymem.h"
#include "providers/key/store.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"
#include "tests/support/keyd.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char base[64], dir[96];
static char why[512];

static struct rs_store *opened(void)
{
    struct rs_store *s = NULL;
    int r = rs_store_open(dir, NULL, &s, why, sizeof(why));
    if (r != 0) fail_msg("%s", why);
    return s;
}

static int setup(void **state)
{
    (void)state;
    (void)snprintf(base, sizeof(base), "/tmp/reseal-store-XXXXXX");
    if (mkdtemp(base) == NULL) return 1;
    (void)snprintf(dir, sizeof(dir), "%s/a/state", base);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return RUN("rm", "-rf", base);
}

static const char *file(const char *name)
{
    static char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void write_file(const char *name, const void *bytes, size_t len)
{
    RS_CLOSE int fd = open(file(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(rs_write_full(fd, bytes, len), 0);
}

static void put_number(struct rs_store *s, const char *name, int n)
{
    json_t *value = json_pack("{s:i}", "n", n);
    assert_int_equal(rs_store_put_json(s, name, value), 0);
    json_decref(value);
}

static int number(struct rs_store *s, const char *name)
{
    json_t *value = NULL;
    assert_int_equal(rs_store_get_json(s, name, &value), 0);
    int n = (int)json_integer_value(json_object_get(value, "n"));
    json_decref(value);
    return n;
}

static void objects_come_back_and_are_for_nobody_else(void **state)
{
    (void)state;
    struct stat st;
    struct rs_store *s = opened();
    json_t *value;
    put_number(s, "providers/one.json", 1);
    put_number(s, "providers/one.json", 2);
    put_number(s, "top.json", 3);
    rs_store_close(s);
    s = opened();
    assert_int_equal(number(s, "providers/one.json"), 2);
    assert_int_equal(number(s, "top.json"), 3);
    assert_int_equal(rs_store_get_json(s, "providers/two.json", &value), RESEAL_ENOKEY);
    assert_int_equal(rs_store_get_json(s, "nothing/two.json", &value), RESEAL_ENOKEY);
    assert_int_equal(rs_store_remove(s, "providers/one.json"), 0);
    assert_int_equal(rs_store_remove(s, "providers/one.json"), 0);
    assert_int_equal(rs_store_get_json(s, "providers/one.json", &value), RESEAL_ENOKEY);
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(stat(file("top.json"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(stat(file("host.key"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_string_equal(rs_store_seal(s), "file");
    rs_store_close(s);
}

static void names_stay_in_the_folder(void **state)
{
    (void)state;
    static const char *const bad[] = {"",        "/",         "/etc/x", "../x", "a/../x", "a//b", "a/",
                                      ".hidden", "a/.hidden", "a/b\n",  "a b",  "a|b",    "a\\b", "\xc3\xa4"};
    struct rs_store *s = opened();
    json_t *value = json_object(), *out;
    for (unsigned i = 0; i < RS_ARRAY_LEN(bad); i++) {
        assert_int_equal(rs_store_put_json(s, bad[i], value), RESEAL_EINVAL);
        assert_int_equal(rs_store_get_json(s, bad[i], &out), RESEAL_EINVAL);
        assert_int_equal(rs_store_remove(s, bad[i]), RESEAL_EINVAL);
        assert_int_equal(rs_store_append(s, bad[i], "x", 1), RESEAL_EINVAL);
    }
    assert_int_equal(rs_store_put_json(s, "hosts/-Zx_9.json", value), 0);
    /* What somebody put there instead of a folder or a file is not followed. */
    assert_int_equal(symlink("/tmp", file("link")), 0);
    assert_int_equal(rs_store_put_json(s, "link/x.json", value), RESEAL_EIO);
    assert_int_equal(symlink("/etc/passwd", file("file.json")), 0);
    assert_int_equal(rs_store_get_json(s, "file.json", &out), RESEAL_EIO);
    assert_int_equal(rs_store_append(s, "file.json", "x", 1), RESEAL_EIO);
    assert_int_equal(mkfifo(file("fifo.json"), 0600), 0);
    assert_int_equal(rs_store_get_json(s, "fifo.json", &out), RESEAL_EFORMAT);
    json_decref(value);
    rs_store_close(s);
}

static int collect(const char *name, void *arg)
{
    char *text = arg;
    (void)snprintf(text + strlen(text), 256 - strlen(text), "%s ", name);
    return strcmp(name, "stop/b") == 0 ? 7 : 0;
}

static void a_list_is_sorted_and_leaves_out_what_is_left_over(void **state)
{
    (void)state;
    struct rs_store *s = opened();
    char text[256] = "";
    put_number(s, "providers/b.json", 1);
    put_number(s, "providers/a.json", 1);
    put_number(s, "providers/sub/c.json", 1);
    write_file("providers/.b.json.new", "torn", 4);
    assert_int_equal(rs_store_each(s, "providers", collect, text), 0);
    assert_string_equal(text, "providers/a.json providers/b.json ");
    assert_int_equal(rs_store_each(s, "none", collect, text), 0);
    put_number(s, "stop/a", 1);
    put_number(s, "stop/b", 1);
    put_number(s, "stop/c", 1);
    text[0] = '\0';
    assert_int_equal(rs_store_each(s, "stop", collect, text), 7);
    assert_string_equal(text, "stop/a stop/b ");
    rs_store_close(s);
}

static void an_object_gets_another_name_in_its_folder(void **state)
{
    (void)state;
    struct rs_store *s = opened();
    put_number(s, "a/x.json", 1);
    put_number(s, "a/y.json", 2);
    assert_int_equal(rs_store_rename(s, "a/x.json", "a/y.json"), 0);
    assert_int_equal(number(s, "a/y.json"), 1);
    assert_int_equal(rs_store_rename(s, "a/x.json", "a/z.json"), RESEAL_ENOKEY);
    assert_int_equal(rs_store_rename(s, "a/y.json", "b/y.json"), RESEAL_EINVAL);
    assert_int_equal(rs_store_rename(s, "a/y.json", "y.json"), RESEAL_EINVAL);
    assert_int_equal(rs_store_rename(s, "a/y.json", "a/../y.json"), RESEAL_EINVAL);
    rs_store_close(s);
}

/* A program of its own: writes one object after the other and tells which, until it is killed. */
static int writer(const char *folder, int tell)
{
    struct rs_store *s;
    if (rs_keymem_init(0) != 0 || rs_store_open(folder, NULL, &s, why, sizeof(why)) != 0) return 2;
    for (int n = 0;; n++) {
        json_t *value = json_pack("{s:i, s:s}", "n", n, "pad", "a text that makes it a little longer");
        if (rs_store_put_json(s, "x/y.json", value) != 0) return 3;
        json_decref(value);
        if (rs_write_full(tell, &n, sizeof(n)) != 0) return 4;
    }
}

/* Each object is whole, and one that was told is there. */
static void a_writer_that_is_killed_leaves_the_old_or_the_new(void **state)
{
    (void)state;
    rs_store_close(opened());
    for (int round = 0; round < 20; round++) {
        int ends[2], told = -1, n = 0;
        char number_of_end[16];
        assert_int_equal(pipe(ends), 0);
        (void)snprintf(number_of_end, sizeof(number_of_end), "%d", ends[1]);
        pid_t pid = fork();
        if (pid == 0) {
            execl("/proc/self/exe", "writer", dir, number_of_end, NULL);
            _exit(127);
        }
        close(ends[1]);
        for (int i = 0; i <= round; i++) assert_int_equal(read(ends[0], &told, sizeof(told)), sizeof(told));
        usleep((useconds_t)(round * 37));
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        while (read(ends[0], &n, sizeof(n)) == sizeof(n)) told = n;
        close(ends[0]);
        struct rs_store *s = opened();
        n = number(s, "x/y.json");
        assert_true(n == told || n == told + 1);
        rs_store_close(s);
    }
}

static void a_full_disk_leaves_the_old(void **state)
{
    (void)state;
    struct rs_store *s = opened();
    struct rlimit old, none;
    put_number(s, "x.json", 1);
    assert_int_equal(rs_store_append(s, "lines", "one", 3), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    none = old;
    none.rlim_cur = 6; /* bytes of any file: as a disk that fills up in the middle */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    json_t *value = json_pack("{s:s}", "text", "longer than that");
    int put = rs_store_put_json(s, "x.json", value), append = rs_store_append(s, "lines", "another one", 11);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    json_decref(value);
    assert_int_equal(put, RESEAL_EIO);
    assert_int_equal(append, RESEAL_EIO);
    assert_int_equal(number(s, "x.json"), 1);
    assert_int_equal(rs_store_append(s, "lines", "two", 3), 0);
    size_t len;
    RS_FREE uint8_t *bytes = file_bytes(file("lines"), &len);
    assert_int_equal(len, 8);
    assert_memory_equal(bytes, "one\ntwo\n", 8);
    rs_store_close(s);
}

static void a_torn_line_is_taken_away(void **state)
{
    (void)state;
    struct rs_store *s = opened();
    size_t len;
    assert_int_equal(rs_store_append(s, "events.jsonl", "{\"n\":1}\n", 8), 0);
    write_file("events.jsonl", "{\"n\":1}\n{\"n\"", 12);
    assert_int_equal(rs_store_append(s, "events.jsonl", "{\"n\":2}", 7), 0);
    RS_FREE uint8_t *bytes = file_bytes(file("events.jsonl"), &len);
    assert_int_equal(len, 16);
    assert_memory_equal(bytes, "{\"n\":1}\n{\"n\":2}\n", 16);
    assert_int_equal(rs_store_append(s, "events.jsonl", "two\nlines", 9), RESEAL_EINVAL);
    assert_int_equal(rs_store_append(s, "events.jsonl", "", 0), RESEAL_EINVAL);
    rs_store_close(s);
}

/* ---- secrets -------------------------------------------------------------------------- */

#define SECRET "a secret that stands nowhere else: heron 4402"

static void put_secret(struct rs_store *s, const char *name)
{
    struct rs_secrets secrets = {0};
    assert_int_equal(rs_secrets_put(&secrets, "password", SECRET, strlen(SECRET)), 0);
    assert_int_equal(rs_secrets_put(&secrets, "empty", "", 0), 0);
    assert_int_equal(rs_store_put_secrets(s, name, &secrets), 0);
    rs_secrets_free(&secrets);
}

static int get_secret(struct rs_store *s, const char *name)
{
    struct rs_secrets out = {0};
    int r = rs_store_get_secrets(s, name, &out);
    if (r == 0) {
        assert_string_equal(rs_secrets_text(&out, "password"), SECRET);
        assert_int_equal(rs_secrets_find(&out, "empty")->len, 0);
        assert_int_equal(out.n, 2);
    }
    rs_secrets_free(&out);
    return r;
}

static void secrets_open_only_as_they_were(void **state)
{
    (void)state;
    struct rs_store *s = opened();
    size_t len, again;
    put_secret(s, "providers/a.sealed");
    rs_store_close(s);
    s = opened();
    assert_int_equal(get_secret(s, "providers/a.sealed"), 0);
    assert_int_equal(get_secret(s, "providers/b.sealed"), RESEAL_ENOKEY);
    RS_FREE uint8_t *bytes = file_bytes(file("providers/a.sealed"), &len);
    assert_null(memmem(bytes, len, SECRET, 16));
    /* Moved under another name: */
    write_file("providers/b.sealed", bytes, len);
    assert_int_equal(get_secret(s, "providers/b.sealed"), RESEAL_EAUTH);
    /* Changed, byte by byte; cut, byte by byte. */
    for (size_t i = 0; i < len; i++) {
        bytes[i] ^= 1;
        write_file("providers/a.sealed", bytes, len);
        int r = get_secret(s, "providers/a.sealed");
        assert_true(r == RESEAL_EAUTH || (i < 8 && r == RESEAL_EFORMAT));
        bytes[i] ^= 1;
        write_file("providers/a.sealed", bytes, i);
        r = get_secret(s, "providers/a.sealed");
        assert_true(r == RESEAL_EAUTH || r == RESEAL_EFORMAT);
    }
    write_file("providers/a.sealed", bytes, len);
    assert_int_equal(get_secret(s, "providers/a.sealed"), 0);
    /* Written twice, it is never the same twice. */
    put_secret(s, "providers/a.sealed");
    RS_FREE uint8_t *other = file_bytes(file("providers/a.sealed"), &again);
    assert_int_equal(again, len);
    assert_memory_not_equal(other + 8, bytes + 8, 32);
    assert_memory_not_equal(other + 56, bytes + 56, len - 56);
    /* Another host: */
    rs_store_close(s);
    assert_int_equal(unlink(file("host.key")), 0);
    assert_int_equal(unlink(file("host.key.check")), 0);
    s = opened();
    assert_int_equal(get_secret(s, "providers/a.sealed"), RESEAL_EAUTH);
    rs_store_close(s);
}

/* ---- what it refuses to open ------------------------------------------------------------ */

static void refuses(int status, const char *word)
{
    struct rs_store *s = NULL;
    assert_int_equal(rs_store_open(dir, NULL, &s, why, sizeof(why)), status);
    assert_null(s);
    if (strstr(why, word) == NULL) fail_msg("'%s' does not say '%s'", why, word);
    assert_null(strchr(why, '\n'));
}

static void a_folder_that_is_not_ours_alone_is_refused(void **state)
{
    (void)state;
    rs_store_close(opened());
    assert_int_equal(chmod(dir, 0770), 0);
    refuses(RESEAL_EPERM, "chmod go-w");
    assert_int_equal(chmod(dir, 0755), 0);
    rs_store_close(opened()); /* only readable by others: made private again */
    struct stat st;
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(chmod(file("host.key"), 0640), 0);
    refuses(RESEAL_EPERM, "chmod 600");
    assert_int_equal(chmod(file("host.key"), 0600), 0);
    write_file("host.key", "short", 5);
    refuses(RESEAL_EFORMAT, "host.key: is not 32 bytes");
    if (getuid() == 0) {
        assert_int_equal(chown(dir, 12345, 12345), 0);
        refuses(RESEAL_EPERM, "belongs to user 12345");
        assert_int_equal(chown(dir, 0, 0), 0);
    }
    assert_int_equal(RUN("rm", "-rf", dir), 0);
    assert_int_equal(symlink("/tmp", dir), 0);
    refuses(RESEAL_EIO, dir);
}

static void a_host_key_that_is_not_the_folders_is_told(void **state)
{
    (void)state;
    uint8_t other[RS_HOST_KEY_LEN] = {1};
    struct rs_store *s = opened();
    size_t len;
    put_secret(s, "providers/a.sealed");
    rs_store_close(s);
    RS_FREE uint8_t *right = file_bytes(file("host.key"), &len);
    write_file("host.key", other, sizeof(other));
    refuses(RESEAL_EAUTH, "the host key is not the one that this folder was sealed with");
    assert_int_equal(unlink(file("host.key")), 0);
    refuses(RESEAL_ENOKEY, "is missing");
    refuses(RESEAL_ENOKEY, "put it back from your backup");
    assert_int_equal(access(file("host.key"), F_OK), -1); /* none was made in its place */
    write_file("host.key", right, len);
    assert_int_equal(chmod(file("host.key"), 0600), 0);
    s = opened();
    assert_int_equal(get_secret(s, "providers/a.sealed"), 0);
    rs_store_close(s);
}

static void a_second_one_on_the_folder_is_refused(void **state)
{
    (void)state;
    struct rs_store *s = opened();
    refuses(RESEAL_EBUSY, "another service uses it");
    rs_store_close(s);
    rs_store_close(opened());
}

/* ---- a keeper of the host key -------------------------------------------------------------- */

static bool keeper_is_there = true;

static int keeper_seal(void *arg, const uint8_t key[RS_HOST_KEY_LEN], json_t **sealed, char *line, size_t len)
{
    (void)line, (void)len;
    if (!keeper_is_there) return RESEAL_ENOSUPPORT;
    memcpy(arg, key, RS_HOST_KEY_LEN);
    *sealed = json_string("blob");
    return 0;
}

static int keeper_unseal(void *arg, const json_t *sealed, uint8_t key[RS_HOST_KEY_LEN], char *line,
                         size_t len)
{
    if (!keeper_is_there) return snprintf(line, len, "the chip is gone"), RESEAL_EAUTH;
    assert_string_equal(json_string_value(sealed), "blob");
    memcpy(key, arg, RS_HOST_KEY_LEN);
    return 0;
}

static void a_keeper_keeps_the_host_key(void **state)
{
    (void)state;
    static uint8_t kept[RS_HOST_KEY_LEN];
    const struct rs_store_keeper keeper = {
        .name = "chip", .arg = kept, .seal = keeper_seal, .unseal = keeper_unseal};
    struct rs_store *s;
    keeper_is_there = true;
    assert_int_equal(rs_store_open(dir, &keeper, &s, why, sizeof(why)), 0);
    assert_string_equal(rs_store_seal(s), "chip");
    put_secret(s, "a.sealed");
    rs_store_close(s);
    assert_int_equal(access(file("host.key"), F_OK), -1);
    assert_int_equal(rs_store_open(dir, &keeper, &s, why, sizeof(why)), 0);
    assert_int_equal(get_secret(s, "a.sealed"), 0);
    rs_store_close(s);
    /* No weaker way: neither without the chip nor with one that does not open it. */
    refuses(RESEAL_ENOSUPPORT, "is sealed by 'chip'");
    keeper_is_there = false;
    assert_int_equal(rs_store_open(dir, &keeper, &s, why, sizeof(why)), RESEAL_EAUTH);
    assert_string_equal(why, "the chip is gone");
    /* A machine without one, from the beginning: */
    assert_int_equal(RUN("rm", "-rf", dir), 0);
    assert_int_equal(rs_store_open(dir, &keeper, &s, why, sizeof(why)), 0);
    assert_string_equal(rs_store_seal(s), "file");
    rs_store_close(s);
}

/* ---- packed secrets ----------------------------------------------------------------------- */

static void a_packed_set_is_read_whole_or_not_at_all(void **state)
{
    (void)state;
    struct rs_secrets s = {0}, out;
    size_t len;
    assert_int_equal(rs_secrets_put(&s, "one", "abc", 3), 0);
    assert_int_equal(rs_secrets_put(&s, "two", "d\0e", 3), 0);
    assert_int_equal(rs_secrets_put(&s, "one", "changed", 7), 0);
    assert_int_equal(s.n, 2);
    assert_string_equal(rs_secrets_text(&s, "one"), "changed");
    assert_null(rs_secrets_text(&s, "two"));
    assert_null(rs_secrets_text(&s, "three"));
    assert_int_equal(rs_secrets_put(&s, "", "x", 1), RESEAL_EINVAL);
    assert_int_equal(rs_secrets_put(&s, "a name that is longer than that", "x", 1), RESEAL_EINVAL);
    RS_KEYMEM uint8_t *packed = rs_secrets_pack(&s, &len);
    assert_non_null(packed);
    for (size_t cut = 1; cut < len; cut++) {
        int r = rs_secrets_unpack(packed, cut, &out);
        assert_true(r == RESEAL_EFORMAT || (r == 0 && out.n == 1));
        rs_secrets_free(&out);
    }
    assert_int_equal(rs_secrets_unpack(packed, len, &out), 0);
    assert_int_equal(out.n, 2);
    assert_memory_equal(rs_secrets_find(&out, "two")->bytes, "d\0e", 3);
    rs_secrets_free(&out);
    packed[1] = 't'; /* "one" becomes "tne", then "two": the same name twice is refused */
    packed[2] = 'w';
    packed[3] = 'o';
    assert_int_equal(rs_secrets_unpack(packed, len, &out), RESEAL_EFORMAT);
    for (unsigned i = 2; i < RS_SECRETS_MAX; i++) {
        const char name[] = {'n', (char)('0' + i), '\0'};
        assert_int_equal(rs_secrets_put(&s, name, "x", 1), 0);
    }
    assert_int_equal(rs_secrets_put(&s, "more", "x", 1), RESEAL_ELIMIT);
    rs_secrets_free(&s);
    assert_int_equal(s.n, 0);
}

#define STORE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    if (argc == 3) return writer(argv[1], atoi(argv[2]));
    const struct CMUnitTest tests[] = {
        STORE_TEST(objects_come_back_and_are_for_nobody_else),
        STORE_TEST(names_stay_in_the_folder),
        STORE_TEST(a_list_is_sorted_and_leaves_out_what_is_left_over),
        STORE_TEST(an_object_gets_another_name_in_its_folder),
        STORE_TEST(a_writer_that_is_killed_leaves_the_old_or_the_new),
        STORE_TEST(a_full_disk_leaves_the_old),
        STORE_TEST(a_torn_line_is_taken_away),
        STORE_TEST(secrets_open_only_as_they_were),
        STORE_TEST(a_folder_that_is_not_ours_alone_is_refused),
        STORE_TEST(a_host_key_that_is_not_the_folders_is_told),
        STORE_TEST(a_second_one_on_the_folder_is_refused),
        STORE_TEST(a_keeper_keeps_the_host_key),
        cmocka_unit_test(a_packed_set_is_read_whole_or_not_at_all),
    };
    if (rs_keymem_init(0) != 0) return 2;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
