/* SPDX-License-Identifier: Apache-2.0 */
/*
 * While a disk of a key provider is made, opened, rewrapped, worked on and served to QEMU, root reads the
 * memory of the service, of `reseal vm serve` and of QEMU: no volume key, no KEK and no KDK, no AES round key
 * of one, no pass phrase of a key slot, and not what it is made of.
 */
#include "offload/base/keymem.h"
#include "providers/key/locked.h"
#include "providers/key/native/native.h"
#include "tests/support/client.h"
#include "tests/support/cmocka.h"
#include "tests/support/keycalls.h"
#include "tests/support/keyd.h"
#include "tests/support/needles.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define OWNER "the owner's own phrase"
#define DATA  65536u

static struct client c;
static char image[300], pass[300], key_file[300];

static void write_file(const char *path, const void *bytes, size_t len)
{
    RS_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(rs_write_full(fd, bytes, len), 0);
}

static void to_image(int header)
{
    off_t len = lseek(header, 0, SEEK_END);
    uint8_t *bytes = malloc((size_t)len);
    assert_true(len > 0 && bytes != NULL);
    assert_int_equal(rs_pread_full(header, bytes, (size_t)len, 0), 0);
    write_file(image, bytes, (size_t)len);
    free(bytes);
    assert_int_equal(truncate(image, len + (1 << 20)), 0);
}

static int open_image(void)
{
    int fd = open(image, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

/* The pass phrase of the image's key slot, and the 32 bytes that it writes down. */
static void phrase_needles(const char *what)
{
    char told[64] = "";
    uint8_t raw[48];
    size_t len;
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    RS_CLOSE int header = open_image();
    const int fds[2] = {header, ends[1]};
    json_decref(call_works(c.r, "disk.phrase", NULL, fds, 2, NULL));
    close(ends[1]);
    assert_int_equal(read(ends[0], told, sizeof(told)), 44);
    close(ends[0]);
    assert_int_equal(rs_base64_decode(told, raw, sizeof(raw), &len), 0);
    needles_add((const uint8_t *)told, what);
    needles_add((const uint8_t *)told + 20, what);
    needles_add(raw, what);
    needles_add(raw + 16, what);
}

static void volume_needles(uint8_t key[64])
{
    size_t len;
    assert_int_equal(RUN("cryptsetup", "luksDump", "-q", "--dump-volume-key", "--volume-key-file", key_file,
                         "--key-file", pass, image),
                     0);
    uint8_t *bytes = file_bytes(key_file, &len);
    assert_int_equal(len, 64);
    memcpy(key, bytes, 64);
    free(bytes);
    needles_add_key(key, 256, "volume key");
    needles_add_key(key + 32, 256, "volume key, tweaks");
}

/* The provider's own key, and the key of it that this answer names. */
static void provider_needles(const char *provider, const json_t *answer)
{
    static const char password[] = "a long enough password";
    struct rs_native_kdk kdk;
    uint8_t der[RS_NATIVE_BACKUP_MAX], kek[32];
    struct stat st;
    int out = -1;
    RS_CLOSE int fd = text_fd(password, strlen(password));
    json_decref(call_works(c.r, "provider.export", json_pack("{s:s}", "provider", provider), &fd, 1, &out));
    assert_true(fstat(out, &st) == 0 && st.st_size <= (off_t)sizeof(der));
    assert_int_equal(rs_pread_full(out, der, (size_t)st.st_size, 0), 0);
    close(out);
    assert_int_equal(rs_native_restore(der, (size_t)st.st_size, password, &kdk), 0);
    assert_int_equal(rs_native_open(&kdk, call_text(answer, "key"), kek), 0);
    needles_add_key(kdk.key, 256, "KDK");
    needles_add_key(kek, 256, "KEK");
}

static pid_t child_of(pid_t pid)
{
    char path[64], text[64] = "";
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
    RS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) (void)!read(fd, text, sizeof(text) - 1);
    return (pid_t)strtol(text, NULL, 10);
}

static void scan(void)
{
    pid_t work = service_child(&c.service, "reseald-work"), keyd = service_child(&c.service, "reseal-keyd");
    assert_true(work > 0 && keyd > 0);
    size_t total = needles_scan_process(c.service.pid, "reseald") +
                   needles_scan_process(work, "reseald-work") + needles_scan_process(keyd, "reseal-keyd");
    pid_t nursery = child_of(keyd);
    if (nursery > 0) total += needles_scan_process(nursery, "nursery");
    needles_scan_core(keyd, c.service.dir, "core of reseal-keyd");
    printf("%zu MiB read, %u needles, %u found\n", total >> 20, needles_count(), needles_found());
    assert_int_equal(needles_found(), 0);
}

/* ---- QEMU --------------------------------------------------------------------------------- */

/* Its stdin and stdout are `in` and `out`; it ends with us. */
static pid_t spawn(const char *const *argv, int in, int out)
{
    pid_t pid = fork();
    if (pid != 0) return pid;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)setenv("RESEAL_RUNTIME_DIR", c.service.dir, 1);
    if (dup2(in, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0)
        (void)execvp(argv[0], (char **)(uintptr_t)argv);
    _exit(127);
}

/* Until the process has said that. */
static void wait_for_text(int fd, const char *text)
{
    static char said[65536];
    size_t len = 0;
    ssize_t n;
    while (strstr(said, text) == NULL && len + 1 < sizeof(said) &&
           (n = read(fd, said + len, sizeof(said) - 1 - len)) > 0)
        said[len += (size_t)n] = '\0';
    if (strstr(said, text) == NULL) fail_msg("no '%s' in: %s", text, said);
    memset(said, 0, sizeof(said));
}

static void end(pid_t pid, int signal)
{
    assert_int_equal(kill(pid, signal), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void serve_to_qemu(void)
{
    static const char command[] = "qemu-io disk \"read 0 65536\"\nqemu-io disk \"write -P 90 4096 8192\"\n";
    char disk[320], socket[320], drive[400], program[300];
    int serving[2], in[2], out[2];
    const char *build = getenv("RESEAL_BUILD");
    (void)snprintf(program, sizeof(program), "%s/bin/reseal", build != NULL ? build : "build/release");
    (void)snprintf(disk, sizeof(disk), "disk=%s", image);
    (void)snprintf(socket, sizeof(socket), "%s/disk.sock", c.service.dir);
    (void)snprintf(drive, sizeof(drive),
                   "driver=nbd,node-name=disk,server.type=unix,server.path=%s,export=disk", socket);
    const char *const serve[] = {program, "vm", "serve", "--disk", disk, "--socket", socket, NULL},
                      *const qemu[] = {
                          "qemu-system-x86_64", "-machine", "none",      "-display", "none", "-nodefaults",
                          "-monitor",           "stdio",    "-blockdev", drive,      NULL};
    assert_int_equal(pipe2(serving, O_CLOEXEC), 0);
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    RS_CLOSE int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    pid_t server = spawn(serve, null, serving[1]);
    close(serving[1]);
    wait_for_text(serving[0], "for QEMU");
    pid_t guest = spawn(qemu, in[0], out[1]);
    close(in[0]);
    close(out[1]);
    assert_int_equal(rs_write_full(in[1], command, sizeof(command) - 1), 0);
    wait_for_text(out[0], "read 65536/65536");
    (void)needles_scan_process(server, "reseal vm serve");
    (void)needles_scan_process(guest, "QEMU");
    scan();
    end(guest, SIGKILL);
    end(server, SIGTERM);
    close(serving[0]);
    close(in[1]);
    close(out[0]);
}

static void nothing_of_a_disks_key_can_be_read(void **state)
{
    (void)state;
    static uint8_t in[DATA], out[DATA];
    uint8_t key[64];
    reseal_key handle;
    RS_CLOSE int owner = text_fd(OWNER, strlen(OWNER)), header = -1;
    json_t *made = call_works(c.r, "disk.format",
                              json_pack("{s:s, s:i, s:I, s:b, s:i}", "provider", "one", "use", 3, "data_size",
                                        (json_int_t)DATA, "recovery", 1, "pbkdf_ms", 5),
                              &owner, 1, &header);
    to_image(header);
    volume_needles(key);
    needles_check_scanner(key);
    provider_needles("one", made);
    phrase_needles("pass phrase of the first slot");
    RS_CLOSE int first = open_image(), changed = -1;
    json_t *moved =
        call_works(c.r, "disk.rewrap", json_pack("{s:s}", "provider", "two"), &first, 1, &changed);
    provider_needles("two", moved);
    json_decref(moved);
    to_image(changed);
    phrase_needles("pass phrase of the second slot");
    RS_CLOSE int second = open_image();
    json_t *opened = call_works(c.r, "disk.open", json_pack("{s:i}", "use", 3), &second, 1, NULL);
    assert_int_equal(rs_keyservice_handle(opened, &handle), 0);
    struct reseal_side side = {.cipher = RESEAL_XTS, .unit = 4096, .step = 8, .key = handle},
                       plain = {.cipher = RESEAL_PLAIN, .unit = 4096};
    reseal_session *s = client_session(c.r, plain, side, 0);
    const struct reseal_job job = {.session = s, .in = in, .out = out, .len = DATA};
    for (int round = 0; round < 2; round++) {
        assert_int_equal(reseal_run(s, &job), DATA);
        scan();
    }
    reseal_session_close(s);
    scan();
    if (RUN("qemu-system-x86_64", "--version") == 0)
        serve_to_qemu();
    else
        printf("qemu-system-x86_64 is not installed: its memory is not looked at\n");
    json_decref(made);
    json_decref(opened);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_of_a_disks_key_can_be_read)};
    signal(SIGPIPE, SIG_IGN);
    if (geteuid() != 0) {
        printf("the memory of other processes can be read by root only\n");
        return 77;
    }
    client_require_service();
    if (rs_keymem_init(0) != 0) return 1;
    needles_check_expansion();
    client_start(&c);
    call_native_provider(c.r, "one");
    call_native_provider(c.r, "two");
    (void)snprintf(image, sizeof(image), "%s/image", c.service.dir);
    (void)snprintf(pass, sizeof(pass), "%s/pass", c.service.dir);
    (void)snprintf(key_file, sizeof(key_file), "%s/key", c.service.dir);
    write_file(pass, OWNER, strlen(OWNER));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    client_stop(&c);
    return failed;
}
