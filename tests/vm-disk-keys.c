/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks whose key slot belongs to a key provider: made, opened, given another KEK, given back to a pass
 * phrase; seen by stock cryptsetup; what is wrong with a header or a key is told in one line.
 */
#include "tests/support/client.h"
#include "tests/support/cmocka.h"
#include "tests/support/keycalls.h"
#include "tests/support/keyd.h"
#include "tests/support/reference.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define OWNER "the owner's own phrase"
#define DATA  (64u << 10)

static struct client c;
static char image[300], pass[300], key_file[300], data_file[300];

static void write_file(const char *path, const void *bytes, size_t len)
{
    RS_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(rs_write_full(fd, bytes, len), 0);
}

/* The header at the start of an image that has room for data. */
static void to_image(int header, uint64_t data_offset)
{
    off_t len = lseek(header, 0, SEEK_END);
    uint8_t *bytes = malloc((size_t)len);
    assert_true(len > 0 && bytes != NULL);
    assert_int_equal(rs_pread_full(header, bytes, (size_t)len, 0), 0);
    write_file(image, bytes, (size_t)len);
    free(bytes);
    assert_int_equal(truncate(image, (off_t)data_offset + DATA), 0);
}

static int open_image(void)
{
    int fd = open(image, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static json_t *wish(int version, const char *provider, bool recovery)
{
    return json_pack("{s:i, s:s, s:i, s:I, s:b, s:i}", "version", version, "provider", provider, "use", 3,
                     "data_size", (json_int_t)DATA, "recovery", recovery, "pbkdf_ms", 5);
}

/* A new disk in `image`; what was answered. */
static json_t *make(int version, const char *provider, bool recovery)
{
    RS_CLOSE int phrase = text_fd(OWNER, strlen(OWNER));
    int header = -1;
    json_t *made =
        call_works(c.r, "disk.format", wish(version, provider, recovery), &phrase, recovery ? 1 : 0, &header);
    to_image(header, (uint64_t)json_integer_value(json_object_get(made, "data_offset")));
    close(header);
    return made;
}

static json_t *reopen(json_t *args)
{
    RS_CLOSE int header = open_image();
    if (args == NULL) args = json_object();
    json_object_set_new(args, "use", json_integer(3));
    return call_works(c.r, "disk.open", args, &header, 1, NULL);
}

/* For a LUKS1 header, which does not say it. */
static json_t *key_of(const json_t *answer)
{
    return json_pack("{s:s, s:s}", "provider", call_text(answer, "provider"), "key",
                     call_text(answer, "key"));
}

static struct reseal_luks luks_of(const json_t *answer)
{
    struct reseal_luks l = {.size = sizeof(l)};
    assert_int_equal(rs_keyservice_luks(answer, &l), 0);
    return l;
}

static reseal_key handle_of(const json_t *answer)
{
    reseal_key key;
    assert_int_equal(rs_keyservice_handle(answer, &key), 0);
    return key;
}

/* `in` through a disk's key, to or from plain. */
static void through(const json_t *disk, bool seal, const uint8_t *in, uint8_t *out)
{
    struct reseal_luks l = luks_of(disk);
    struct reseal_side side = {.cipher = RESEAL_XTS, .unit = l.unit, .step = l.step, .key = handle_of(disk)},
                       plain = {.cipher = RESEAL_PLAIN, .unit = l.unit};
    reseal_session *s = client_session(c.r, seal ? plain : side, seal ? side : plain, 0);
    struct reseal_job job = {.session = s, .in = in, .out = out, .len = DATA};
    assert_int_equal(reseal_run(s, &job), DATA);
    reseal_session_close(s);
}

static void data_of(uint8_t *out, uint64_t seed)
{
    reference_random(&seed, out, DATA);
}

/* ---- what works ---------------------------------------------------------------------------- */

static void a_new_disk_opens_by_its_provider(void **state)
{
    (void)state;
    static uint8_t data[DATA], sealed[DATA], back[DATA];
    data_of(data, 1);
    for (int version = 1; version <= 2; version++) {
        json_t *made = make(version, "one", false);
        assert_string_equal(call_text(made, "provider"), "one");
        json_t *opened = reopen(version == 1 ? key_of(made) : NULL);
        assert_string_equal(call_text(opened, "uuid"), call_text(made, "uuid"));
        assert_string_equal(call_text(opened, "key"), call_text(made, "key"));
        through(made, true, data, sealed);
        assert_memory_not_equal(sealed, data, DATA);
        through(opened, false, sealed, back);
        assert_memory_equal(back, data, DATA);
        /* Stock cryptsetup sees a header, and whose it is. */
        assert_int_equal(RUN("cryptsetup", "luksDump", image), 0);
        assert_int_equal(RUN("cryptsetup", "token", "export", "--token-id", "0", image),
                         version == 2 ? 0 : 1);
        json_decref(made);
        json_decref(opened);
    }
}

/* The volume key as cryptsetup finds it decrypts what was written through the service. */
static void the_owner_opens_it_with_cryptsetup(void **state)
{
    (void)state;
    static uint8_t data[DATA], sealed[DATA], back[DATA];
    data_of(data, 2);
    for (int version = 1; version <= 2; version++) {
        json_t *made = make(version, "one", true);
        struct reseal_luks l = luks_of(made);
        assert_int_equal(RUN("cryptsetup", "open", "--test-passphrase", "--disable-external-tokens",
                             "--key-file", pass, image),
                         0);
        (void)unlink(key_file);
        assert_int_equal(RUN("cryptsetup", "luksDump", "-q", "--dump-volume-key", "--volume-key-file",
                             key_file, "--key-file", pass, image),
                         0);
        size_t len;
        uint8_t *key = file_bytes(key_file, &len);
        assert_int_equal(len, 64);
        through(made, true, data, sealed);
        reference_xts(0, 256, key, 0, 0, l.step, l.unit, sealed, back, DATA);
        assert_memory_equal(back, data, DATA);
        free(key);
        json_decref(made);
    }
}

static void another_kek_takes_over(void **state)
{
    (void)state;
    for (int version = 1; version <= 2; version++) {
        json_t *made = make(version, "one", true);
        json_t *args = version == 1 ? json_pack("{s:s, s:s, s:s}", "old_provider", "one", "old_key",
                                                call_text(made, "key"), "provider", "two")
                                    : json_pack("{s:s}", "provider", "two");
        RS_CLOSE int header = open_image(), out = -1;
        json_t *changed = call_works(c.r, "disk.rewrap", args, &header, 1, &out);
        assert_string_equal(call_text(changed, "provider"), "two");
        assert_string_not_equal(call_text(changed, "key"), call_text(made, "key"));
        assert_int_equal(lseek(out, 0, SEEK_END), json_integer_value(json_object_get(made, "header_size")));
        to_image(out, (uint64_t)json_integer_value(json_object_get(made, "data_offset")));
        json_t *opened = reopen(version == 1 ? key_of(changed) : NULL);
        assert_string_equal(call_text(opened, "provider"), "two");
        assert_string_equal(call_text(opened, "uuid"), call_text(made, "uuid"));
        /* The old KEK does not open it any more; the owner still does. */
        RS_CLOSE int again = open_image();
        call_refused(c.r, "disk.open", key_of(made), &again, 1, RESEAL_EPASS,
                     "no key slot opens with that key");
        assert_int_equal(RUN("cryptsetup", "open", "--test-passphrase", "--disable-external-tokens",
                             "--key-file", pass, image),
                         0);
        json_decref(made);
        json_decref(changed);
        json_decref(opened);
    }
}

/* The pass phrase of the provider's slot in `image`, into `key_file`. */
static void have_the_phrase_told(void)
{
    int ends[2];
    char told[100] = "";
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    RS_CLOSE int header = open_image();
    const int fds[2] = {header, ends[1]};
    json_decref(call_works(c.r, "disk.phrase", NULL, fds, 2, NULL));
    close(ends[1]);
    assert_int_equal(read(ends[0], told, sizeof(told)), 44);
    close(ends[0]);
    write_file(key_file, told, 44);
}

static void the_phrase_is_told_to_who_may_have_it(void **state)
{
    (void)state;
    json_t *made = make(2, "one", false);
    have_the_phrase_told();
    assert_int_equal(RUN("cryptsetup", "open", "--test-passphrase", "--disable-external-tokens", "--key-file",
                         key_file, image),
                     0);
    json_decref(made);
}

/* `image` is the header alone, `data_file` the rest, which begins at `start`. */
static void cryptsetup_opens_the_pair(uint64_t start, uint32_t unit, const uint8_t *sealed,
                                      const uint8_t *data)
{
    static uint8_t back[DATA];
    char volume[320];
    RS_CLOSE int fd = open(data_file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(rs_pwrite_full(fd, sealed, DATA, start), 0);
    have_the_phrase_told();
    assert_int_equal(RUN("cryptsetup", "open", "--test-passphrase", "--disable-external-tokens", "--key-file",
                         key_file, "--header", image, data_file),
                     0);
    (void)snprintf(volume, sizeof(volume), "%s.volume", key_file);
    assert_int_equal(RUN("cryptsetup", "luksDump", "-q", "--dump-volume-key", "--volume-key-file", volume,
                         "--key-file", key_file, image),
                     0);
    size_t len;
    uint8_t *key = file_bytes(volume, &len);
    assert_int_equal(len, 64);
    reference_xts(0, 256, key, 0, 0, unit / 512, unit, sealed, back, DATA);
    assert_memory_equal(back, data, DATA);
    assert_int_equal(unlink(volume), 0);
    free(key);
}

static void to_header_file(int header)
{
    off_t len = lseek(header, 0, SEEK_END);
    to_image(header, (uint64_t)len);
    assert_int_equal(truncate(image, len), 0);
}

static void a_header_of_its_own_says_where_the_data_is(void **state)
{
    (void)state;
    static const uint64_t starts[] = {0, 1 << 20, 16 << 20};
    static uint8_t data[DATA], sealed[DATA];
    data_of(data, 3);
    for (unsigned i = 0; i < RS_ARRAY_LEN(starts); i++) {
        json_t *args = wish(2, "one", false);
        json_object_set_new(args, "detached", json_true());
        if (starts[i] != 0) json_object_set_new(args, "data_offset", json_integer((json_int_t)starts[i]));
        int header = -1, changed = -1;
        json_t *made = call_works(c.r, "disk.format", args, NULL, 0, &header);
        assert_int_equal(luks_of(made).data_offset, starts[i]);
        through(made, true, data, sealed);
        to_header_file(header);
        close(header);
        cryptsetup_opens_the_pair(starts[i], luks_of(made).unit, sealed, data);
        /* With another KEK it is as much in order as before. */
        header = open_image();
        json_decref(
            call_works(c.r, "disk.rewrap", json_pack("{s:s}", "provider", "two"), &header, 1, &changed));
        close(header);
        to_header_file(changed);
        close(changed);
        json_t *opened = reopen(NULL);
        assert_int_equal(luks_of(opened).data_offset, starts[i]);
        assert_string_equal(call_text(opened, "provider"), "two");
        cryptsetup_opens_the_pair(starts[i], luks_of(made).unit, sealed, data);
        json_decref(opened);
        json_decref(made);
    }
}

static void a_disk_is_given_back_to_a_phrase_and_adopted_again(void **state)
{
    (void)state;
    json_t *made = make(2, "one", false);
    uint64_t offset = luks_of(made).data_offset;
    RS_CLOSE int phrase = text_fd(OWNER, strlen(OWNER)), header = open_image(), out = -1;
    int fds[2] = {header, phrase};
    json_decref(call_works(c.r, "disk.release", json_pack("{s:i}", "pbkdf_ms", 5), fds, 2, &out));
    to_image(out, offset);
    assert_int_equal(RUN("cryptsetup", "open", "--test-passphrase", "--key-file", pass, image), 0);
    RS_CLOSE int released = open_image();
    call_refused(c.r, "disk.open", NULL, &released, 1, RESEAL_ENOKEY, "open it with its pass phrase");
    RS_CLOSE int phrase2 = text_fd(OWNER, strlen(OWNER)), out2 = -1;
    fds[0] = released;
    fds[1] = phrase2;
    json_t *adopted = call_works(c.r, "disk.adopt", json_pack("{s:s}", "provider", "two"), fds, 2, &out2);
    assert_string_equal(call_text(adopted, "provider"), "two");
    to_image(out2, offset);
    json_t *opened = reopen(NULL);
    assert_string_equal(call_text(opened, "key"), call_text(adopted, "key"));
    assert_int_equal(RUN("cryptsetup", "open", "--test-passphrase", "--disable-external-tokens", "--key-file",
                         pass, image),
                     0);
    json_decref(made);
    json_decref(adopted);
    json_decref(opened);
}

/* ---- what does not --------------------------------------------------------------------------- */

/* Who knows what the header says spares a reading, and gets no other disk by that. */
static void a_disk_that_is_named_is_read_once(void **state)
{
    (void)state;
    json_t *other = make(2, "one", false), *made = make(2, "one", false), *args = key_of(made);
    json_object_set_new(args, "uuid", json_string(call_text(made, "uuid")));
    json_decref(reopen(args));
    RS_CLOSE int header = open_image(), again = open_image();
    args = key_of(made);
    json_object_set_new(args, "uuid", json_string(call_text(other, "uuid")));
    call_refused(c.r, "disk.open", args, &header, 1, RESEAL_EFORMAT, "of another disk");
    args = json_pack("{s:s}", "uuid", call_text(made, "uuid"));
    call_refused(c.r, "disk.open", args, &again, 1, RESEAL_EINVAL, "uuid");
    json_decref(other);
    json_decref(made);
}

/* Somebody gave the slot another derivation, with stock cryptsetup: it opens by libcryptsetup then. */
static void a_slot_of_another_form_opens_too(void **state)
{
    (void)state;
    static uint8_t data[DATA], sealed[DATA], back[DATA];
    data_of(data, 5);
    json_t *made = make(2, "one", false);
    through(made, true, data, sealed);
    have_the_phrase_told();
    assert_int_equal(RUN("cryptsetup", "luksConvertKey", "--disable-external-tokens", "-q", "--key-slot", "0",
                         "--key-file", key_file, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "2000",
                         "--hash", "sha512", image),
                     0);
    json_t *opened = reopen(NULL);
    assert_string_equal(call_text(opened, "key"), call_text(made, "key"));
    assert_int_equal(luks_of(opened).keyslot, 0);
    through(opened, false, sealed, back);
    assert_memory_equal(back, data, DATA);
    json_decref(opened);
    json_decref(made);
}

static void wishes_that_cannot_be_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *args;
        int code;
        const char *words;
    } bad[] = {
        {"{\"provider\":\"nowhere\"}", RESEAL_ENOKEY, "nowhere"},
        {"{\"provider\":\"one\",\"key\":\"no such key\"}", RESEAL_ENOKEY, "one"},
        {"{\"provider\":\"one\",\"version\":3}", RESEAL_EINVAL, "version 1 or 2"},
        {"{\"provider\":\"one\",\"version\":1,\"detached\":true}", RESEAL_EINVAL, "detached with version 2"},
        {"{\"provider\":\"one\",\"detached\":true,\"data_offset\":4096}", RESEAL_EINVAL, "like that"},
        {"{\"provider\":\"one\",\"unit\":700}", RESEAL_EINVAL, "unit 512 to 4096"},
        {"{\"provider\":\"one\",\"recovery\":true}", RESEAL_EINVAL, "descriptor"},
        {"{\"provider\":\"one\",\"recovery\":1}", RESEAL_EINVAL, "true or false"},
        {"{\"provider\":\"one\",\"use\":4}", RESEAL_EINVAL, "use"},
        {"{\"provider\":\"one\",\"colour\":1}", RESEAL_EINVAL, "colour"},
        {"{\"provider\":\"one\",\"details\":{\"x-Name\":1}}", RESEAL_EINVAL, "details"},
    };
    for (size_t i = 0; i < RS_ARRAY_LEN(bad); i++)
        call_refused(c.r, "disk.format", json_loads(bad[i].args, 0, NULL), NULL, 0, bad[i].code,
                     bad[i].words);
}

/* Tokens as others may write them: cryptsetup takes each of them. */
static void hostile_tokens_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *token;
        int code;
        const char *words;
    } bad[] = {
        {"{\"type\":\"reseal\",\"keyslots\":[\"0\"]}", RESEAL_EFORMAT, "'version'"},
        {"{\"type\":\"reseal\",\"keyslots\":[\"0\"],\"version\":2}", RESEAL_EFORMAT, "later version"},
        {"{\"type\":\"reseal\",\"keyslots\":[\"0\"],\"version\":1}", RESEAL_EFORMAT, "'provider'"},
        {"{\"type\":\"reseal\",\"keyslots\":[\"0\"],\"version\":1,\"provider\":[\"one\"],\"key\":\"k\"}",
         RESEAL_EFORMAT, "'provider'"},
        {"{\"type\":\"reseal\",\"keyslots\":[\"0\"],\"version\":1,\"provider\":\"one\",\"key\":\"a\\nb\"}",
         RESEAL_EFORMAT, "'key'"},
        {"{\"type\":\"reseal\",\"keyslots\":[\"0\"],\"version\":1,\"provider\":\"one\",\"key\":7}",
         RESEAL_EFORMAT, "'key'"},
        {"{\"type\":\"reseal\",\"keyslots\":[],\"version\":1,\"provider\":\"one\",\"key\":\"k\"}",
         RESEAL_EFORMAT, "'keyslots'"},
        {"{\"type\":\"reseal\",\"keyslots\":[\"0\"],\"version\":1,\"provider\":\"gone\",\"key\":\"k\"}",
         RESEAL_ENOKEY, "gone"},
        {"{\"type\":\"reseal\",\"keyslots\":[\"0\"],\"version\":1,\"provider\":\"one\",\"key\":\"k\"}",
         RESEAL_ENOKEY, "one"},
        {"{\"type\":\"reseal\",\"keyslots\":[\"0\"],\"version\":1,\"provider\":\"one\",\"key\":\"k\","
         "\"deep\":"
         "[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]}",
         RESEAL_ENOKEY, "one"},
    };
    char file[320];
    (void)snprintf(file, sizeof(file), "%s/token.json", c.service.dir);
    for (size_t i = 0; i < RS_ARRAY_LEN(bad); i++) {
        json_decref(make(2, "one", false));
        write_file(file, bad[i].token, strlen(bad[i].token));
        assert_int_equal(
            RUN("cryptsetup", "token", "remove", "--token-id", "0", "--disable-external-tokens", image), 0);
        assert_int_equal(
            RUN("cryptsetup", "token", "import", "--json-file", file, "--disable-external-tokens", image), 0);
        RS_CLOSE int header = open_image();
        call_refused(c.r, "disk.open", NULL, &header, 1, bad[i].code, bad[i].words);
    }
}

static void a_token_of_two_or_of_ten_thousand_bytes_is_told(void **state)
{
    (void)state;
    char file[320], *huge = malloc(12000);
    (void)snprintf(file, sizeof(file), "%s/token.json", c.service.dir);
    assert_non_null(huge);
    json_decref(make(2, "one", false));
    memset(huge, 'x', 12000);
    int n = snprintf(
        huge, 100, "{\"type\":\"reseal\",\"keyslots\":[\"0\"],\"version\":1,\"provider\":\"one\",\"key\":\"");
    huge[n] = 'x';
    memcpy(huge + 10000, "\"}", 3);
    write_file(file, huge, 10002);
    free(huge);
    assert_int_equal(
        RUN("cryptsetup", "token", "remove", "--token-id", "0", "--disable-external-tokens", image), 0);
    if (RUN("cryptsetup", "token", "import", "--json-file", file, "--disable-external-tokens", image) == 0) {
        RS_CLOSE int header = open_image();
        call_refused(c.r, "disk.open", NULL, &header, 1, RESEAL_EFORMAT, "8 KiB");
    }
    json_decref(make(2, "one", false));
    static const char second[] =
        "{\"type\":\"reseal\",\"keyslots\":[\"0\"],\"version\":1,\"provider\":\"one\",\"key\":\"k\"}";
    write_file(file, second, sizeof(second) - 1);
    assert_int_equal(
        RUN("cryptsetup", "token", "import", "--json-file", file, "--disable-external-tokens", image), 0);
    RS_CLOSE int header = open_image();
    call_refused(c.r, "disk.open", NULL, &header, 1, RESEAL_EFORMAT, "two tokens");
}

static void what_is_no_header_says_so(void **state)
{
    (void)state;
    write_file(image, "not a LUKS header at all", 24);
    assert_int_equal(truncate(image, 20 << 20), 0);
    RS_CLOSE int junk = open_image(), null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    call_refused(c.r, "disk.open", NULL, &junk, 1, RESEAL_EFORMAT, "no LUKS header");
    call_refused(c.r, "disk.open", NULL, &null, 1, RESEAL_EINVAL, "neither a file nor a block device");
    json_t *made = make(1, "one", false);
    RS_CLOSE int header = open_image();
    call_refused(c.r, "disk.open", NULL, &header, 1, RESEAL_ENOKEY, "give the key provider and the key id");
    const int fds[2] = {header, null};
    call_refused(c.r, "disk.adopt", json_pack("{s:s}", "provider", "one"), fds, 2, RESEAL_EPASS, "empty");
    json_decref(made);
}

static int start(void **state)
{
    (void)state;
    client_require_service();
    client_start(&c);
    call_native_provider(c.r, "one");
    call_native_provider(c.r, "two");
    (void)snprintf(image, sizeof(image), "%s/image", c.service.dir);
    (void)snprintf(pass, sizeof(pass), "%s/pass", c.service.dir);
    (void)snprintf(key_file, sizeof(key_file), "%s/key", c.service.dir);
    (void)snprintf(data_file, sizeof(data_file), "%s/data", c.service.dir);
    write_file(pass, OWNER, strlen(OWNER));
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
        cmocka_unit_test(a_new_disk_opens_by_its_provider),
        cmocka_unit_test(the_owner_opens_it_with_cryptsetup),
        cmocka_unit_test(another_kek_takes_over),
        cmocka_unit_test(the_phrase_is_told_to_who_may_have_it),
        cmocka_unit_test(a_header_of_its_own_says_where_the_data_is),
        cmocka_unit_test(a_disk_is_given_back_to_a_phrase_and_adopted_again),
        cmocka_unit_test(a_disk_that_is_named_is_read_once),
        cmocka_unit_test(a_slot_of_another_form_opens_too),
        cmocka_unit_test(wishes_that_cannot_be_are_refused),
        cmocka_unit_test(hostile_tokens_are_told),
        cmocka_unit_test(a_token_of_two_or_of_ten_thousand_bytes_is_told),
        cmocka_unit_test(what_is_no_header_says_so),
    };
    signal(SIGPIPE, SIG_IGN);
    /* A key derivation takes its time on a busy machine. */
    setenv("RESEAL_KEYD_DEADLINE", "300", 1);
    return cmocka_run_group_tests(tests, start, stop);
}
