/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Root reads all the memory of reseal-keyd and its nursery through /proc:
 * neither a key nor a pass phrase is there, though the keys are in use. Where
 * memfd_secret is off, a key may lie in key memory, and nowhere else.
 */
#include "tests/support/keyd.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define PASS "a pass phrase that stands nowhere else: fjord 7731"
#define NAME "scan-canary-of-the-heap"

static struct keyd k;
static char image[128];

static pid_t child_of(pid_t pid)
{
    char path[64];
    long child = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
    FILE *f = fopen(path, "re");
    if (f == NULL) return 0;
    if (fscanf(f, "%ld", &child) != 1) child = 0;
    (void)fclose(f);
    return (pid_t)child;
}

/* Mappings of the process that hold the bytes. What cannot be read holds nothing. */
static unsigned mappings_with(pid_t pid, const void *needle, size_t len)
{
    char path[64], line[512];
    unsigned found = 0;
    unsigned long from, to;
    (void)snprintf(path, sizeof(path), "/proc/%d/maps", pid);
    FILE *maps = fopen(path, "re");
    (void)snprintf(path, sizeof(path), "/proc/%d/mem", pid);
    RS_CLOSE int mem = open(path, O_RDONLY | O_CLOEXEC);
    assert_non_null(maps);
    assert_true(mem >= 0);
    while (fgets(line, sizeof(line), maps) != NULL) {
        if (sscanf(line, "%lx-%lx", &from, &to) != 2 || to - from > (64ul << 20)) continue;
        uint8_t *bytes = malloc(to - from);
        assert_non_null(bytes);
        /* Page by page: one that is not there does not hide the next. */
        size_t got = 0;
        for (unsigned long at = from; at < to; at += 4096) {
            ssize_t n = pread(mem, bytes + got, 4096, (off_t)at);
            if (n > 0) got += (size_t)n;
        }
        found += got >= len && memmem(bytes, got, needle, len) != NULL;
        free(bytes);
    }
    (void)fclose(maps);
    return found;
}

static void keys_and_pass_phrases_are_in_no_readable_memory(void **state)
{
    (void)state;
    int sock = keyd_connect(&k);
    struct rs_msg_luks l;
    struct rs_msg_session_keys keys, gcm_keys;
    struct rs_msg_key_use use = {.cipher = RESEAL_GCM, .use = 3},
                          made = {.cipher = RESEAL_GCM, .use = 3, .bits = 256};
    uint8_t raw[32];
    reseal_key key, random;
    RS_CLOSE int urandom = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    assert_int_equal(rs_read_full(urandom, raw, sizeof(raw)), 0);
    memcpy(use.name, NAME, sizeof(NAME));
    assert_int_equal(keyd_raw(sock, raw, sizeof(raw), &use, &key), 0);
    assert_int_equal(keyd_random(sock, &made, &random), 0);
    assert_int_equal(keyd_luks(sock, image, PASS, 3, &l), 0);
    struct rs_msg_session_request q = session_of(RESEAL_XTS, l.key, RESEAL_GCM, key, l.unit, l.step);
    q.transform.stages = RESEAL_STAGE_DIGEST;
    assert_int_equal(keyd_session(&k, &q, &keys), 0);
    q = session_of(RESEAL_GCM, random, RESEAL_GCM, key, 0, 0);
    assert_int_equal(keyd_session(&k, &q, &gcm_keys), 0);
    char *text = keyd_text(sock, RS_MSG_STATUS);
    unsigned may = strstr(text, "\"kind\": \"secret\"") != NULL ? 0 : 1;
    free(text);

    pid_t programs[2] = {k.pid, child_of(k.pid)};
    assert_true(mappings_with(k.pid, NAME, strlen(NAME)) > 0); /* the scan does see the heap */
    for (unsigned i = 0; i < 2 && programs[i] != 0; i++) {
        unsigned most = i == 0 ? may : 0;
        assert_true(mappings_with(programs[i], raw, sizeof(raw)) <= most);
        assert_true(mappings_with(programs[i], keys.src, 32) <= most);
        assert_true(mappings_with(programs[i], keys.src + 32, 32) <= most);
        assert_true(mappings_with(programs[i], gcm_keys.src, 32) <= most);
        /* Given away and forgotten: */
        assert_int_equal(mappings_with(programs[i], keys.dst, 32), 0);
        assert_int_equal(mappings_with(programs[i], keys.digest, 32), 0);
        assert_int_equal(mappings_with(programs[i], PASS, strlen(PASS)), 0);
    }
    close(sock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(keys_and_pass_phrases_are_in_no_readable_memory)};
    if (getuid() != 0) {
        printf("only root can read the memory of another program\n");
        return 77;
    }
    signal(SIGPIPE, SIG_IGN);
    keyd_start(&k, NULL);
    (void)snprintf(image, sizeof(image), "%s/image", k.dir);
    int sock = keyd_connect(&k), header = -1;
    struct rs_msg_luks made;
    const struct rs_msg_luks_format f = {.use = 3, .data_size = 4096, .pbkdf = 1, .pbkdf_ms = 1};
    if (keyd_format(sock, &f, PASS, &made, &header) != 0) return 2;
    uint8_t *bytes = malloc(made.header_size);
    int fd = open(image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (bytes == NULL || rs_pread_full(header, bytes, made.header_size, 0) != 0) return 2;
    if (rs_write_full(fd, bytes, made.header_size) != 0 || ftruncate(fd, 20 << 20) != 0) return 2;
    free(bytes);
    close(fd);
    close(header);
    close(sock);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    keyd_stop(&k);
    return failed;
}
