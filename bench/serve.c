/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "bench/command.h"
#include "bench/leave-nothing.h"
#include "bench/pairs.h"
#include "bench/private-service.h"
#include "reseal/reseal.h"

#define WRITES    4u /* times that a sequential write goes over the disk */
#define NAME_ROOM (PATH_MAX + 128)
#define WAIT_MS   60000u
#define STEP      (512ull << 20) /* that QEMU reads at a time */

static int fail(struct rs_serve_bench *b, const char *what, const char *why)
{
    snprintf(b->why, sizeof(b->why), "%.200s: %.300s", what, why);
    return RESEAL_EIO;
}

static int run(struct rs_serve_bench *b, const char *const *argv, struct rs_command_result *result)
{
    return rs_command_run(argv, result) == 0 ? 0 : fail(b, argv[0], result->why);
}

/* ---- disks and servers --------------------------------------------------------- */

static int write_secret(struct rs_serve_bench *b)
{
    char path[NAME_ROOM];
    snprintf(path, sizeof(path), "%s/pass", b->dir);
    int r = rs_temporary_phrase_file(path);
    return r == 0 ? 0 : fail(b, path, strerror(-r));
}

static void secret_option(const struct rs_serve_bench *b, char out[NAME_ROOM])
{
    snprintf(out, NAME_ROOM, "secret,id=k,file=%s/pass", b->dir);
}

static int make_disk(struct rs_serve_bench *b, const char *name)
{
    char path[NAME_ROOM], secret[NAME_ROOM], size[32];
    struct rs_command_result result;
    snprintf(path, sizeof(path), "%s/%s", b->dir, name);
    snprintf(size, sizeof(size), "%llu", (unsigned long long)b->size);
    secret_option(b, secret);
    const char *const argv[] = {
        "qemu-img", "create", "-q", "-f", "luks", "--object", secret, "-o", "key-secret=k,iter-time=10",
        path,       size,     NULL};
    return run(b, argv, &result);
}

/* Until somebody listens there. */
static int wait_for_socket(struct rs_serve_bench *b, const char *name)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int n = snprintf(at.sun_path, sizeof(at.sun_path), "%s/%s", b->dir, name);
    if (n < 0 || (size_t)n >= sizeof(at.sun_path))
        return fail(b, b->dir, "the name is too long for a socket");
    for (unsigned ms = 0; ms < WAIT_MS; ms += 20) {
        RS_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0) return 0;
        (void)poll(NULL, 0, 20);
    }
    return fail(b, name, "the server did not start");
}

static int start_servers(struct rs_serve_bench *b)
{
    char disk[NAME_ROOM], pass[NAME_ROOM], sock[NAME_ROOM], secret[NAME_ROOM], image[NAME_ROOM],
        peer[NAME_ROOM];
    snprintf(disk, sizeof(disk), "disk=%s/ours", b->dir);
    snprintf(pass, sizeof(pass), "%s/pass", b->dir);
    snprintf(sock, sizeof(sock), "%s/ours.sock", b->dir);
    snprintf(peer, sizeof(peer), "%s/theirs.sock", b->dir);
    snprintf(image, sizeof(image), "driver=luks,key-secret=k,file.driver=file,file.filename=%s/theirs",
             b->dir);
    secret_option(b, secret);
    const char *const ours[] = {b->program,     "vm",       "serve", "--runtime-dir",
                                b->runtime_dir, "--disk",   disk,    "--passphrase-file",
                                pass,           "--socket", sock,    NULL};
    /* Several clients at a time, as ours has them, and for as long as it takes. */
    const char *const theirs[] = {"qemu-nbd", "--object", secret, "--image-opts", image, "-k", peer, "-t",
                                  "-e",       "8",        NULL};
    b->ours = rs_command_start(ours);
    b->theirs = rs_command_start(theirs);
    if (b->ours <= 0 || b->theirs <= 0) return fail(b, "fork", strerror(errno));
    int r = wait_for_socket(b, "ours.sock");
    return r != 0 ? r : wait_for_socket(b, "theirs.sock");
}

/* ---- one run ------------------------------------------------------------------- */

struct work {
    const char *rw, *bs;
    uint64_t bytes;
    bool check; /* of what is read */
};

static double cpu_of(const struct rs_serve_bench *b, bool ours)
{
    if (!ours) return rs_cpu_seconds_of_tree(b->theirs);
    return rs_cpu_seconds_of_tree(b->ours) + rs_cpu_seconds_of_tree(b->service);
}

static int side(struct rs_serve_bench *b, const struct work *w, bool ours, double *cpu, double *seconds)
{
    char uri[NAME_ROOM], rw[32], bs[32], depth[32], size[48], bytes[48], pattern[48], output[NAME_ROOM];
    struct rs_command_result result;
    snprintf(uri, sizeof(uri), "--uri=nbd+unix:///?socket=%s/%s.sock", b->dir, ours ? "ours" : "theirs");
    snprintf(rw, sizeof(rw), "--rw=%s", w->rw);
    snprintf(bs, sizeof(bs), "--bs=%s", w->bs);
    snprintf(depth, sizeof(depth), "--iodepth=%u", b->depth);
    snprintf(size, sizeof(size), "--size=%llu", (unsigned long long)b->size);
    snprintf(bytes, sizeof(bytes), "--io_size=%llu", (unsigned long long)w->bytes);
    snprintf(pattern, sizeof(pattern), w->check ? "--verify_pattern=0x%02x" : "--buffer_pattern=0x%02x",
             b->pattern);
    snprintf(output, sizeof(output), "--output=%s/fio", b->dir);
    const char *argv[] = {"fio",
                          "--name=serve",
                          "--ioengine=nbd",
                          "--norandommap",
                          uri,
                          rw,
                          bs,
                          depth,
                          size,
                          bytes,
                          pattern,
                          output,
                          w->check ? "--verify=pattern" : NULL,
                          NULL};
    double before = cpu_of(b, ours);
    int r = run(b, argv, &result);
    *cpu = cpu_of(b, ours) - before;
    *seconds = result.seconds;
    rs_pairs_settle(b->dir, ours ? "ours" : "theirs");
    return r;
}

static int measure(struct rs_serve_bench *b, const struct work *w, struct rs_result *out)
{
    struct rs_pairs p;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < b->runs; i++) {
        double seconds = 1, unused;
        bool first = i % 2 == 0;
        if (!w->check) b->pattern = b->pattern % 255 + 1;
        r = side(b, w, first, first ? &p.ours[i] : &p.theirs[i], first ? &seconds : &unused);
        if (r == 0) r = side(b, w, !first, first ? &p.theirs[i] : &p.ours[i], first ? &unused : &seconds);
        p.gbps[i] = (double)w->bytes / seconds / 1e9;
    }
    if (r == 0) rs_pairs_conclude(&p, b->runs, w->bytes, "qemu-nbd", out);
    return r;
}

static void about(const struct rs_serve_bench *b, struct rs_result *out, const char *name, uint64_t bytes,
                  const char *from, const char *to)
{
    rs_result_init(out, name);
    out->from = from;
    out->to = to;
    out->unit = 512;
    out->bytes = bytes;
    out->depth = b->depth;
    out->working_set = b->size;
    out->key_bits = 256;
}

int rs_serve_bench_random_read(struct rs_serve_bench *b, struct rs_result *out)
{
    const struct work w = {.rw = "randread", .bs = "4k", .bytes = b->size, .check = true};
    about(b, out, "serve-random-read", 4096, "luks1", "plain");
    return measure(b, &w, out);
}

int rs_serve_bench_sequential_write(struct rs_serve_bench *b, struct rs_result *out)
{
    const struct work w = {.rw = "write", .bs = "1M", .bytes = WRITES * b->size};
    about(b, out, "serve-sequential-write", 1 << 20, "plain", "luks1");
    return measure(b, &w, out);
}

bool rs_serve_bench_verify(struct rs_serve_bench *b)
{
    char secret[NAME_ROOM], image[NAME_ROOM], command[96];
    struct rs_command_result result;
    secret_option(b, secret);
    snprintf(image, sizeof(image), "driver=luks,key-secret=k,file.driver=file,file.filename=%s/ours", b->dir);
    rs_command_end(b->ours);
    b->ours = 0;
    for (uint64_t at = 0; at < b->size; at += STEP) {
        snprintf(command, sizeof(command), "read -P 0x%02x %llu %llu", b->pattern, (unsigned long long)at,
                 (unsigned long long)RS_MIN(b->size - at, STEP));
        const char *const argv[] = {"qemu-io", "-r",    "--object", secret, "--image-opts",
                                    "-c",      command, image,      NULL};
        if (rs_command_run(argv, &result) != 0) return false;
    }
    return true;
}

/* ---- life ---------------------------------------------------------------------- */

static int prepare(struct rs_serve_bench *b)
{
    double unused;
    const struct work fill = {.rw = "write", .bs = "1M", .bytes = b->size};
    int r = write_secret(b);
    if (r == 0) r = make_disk(b, "ours");
    if (r == 0) r = make_disk(b, "theirs");
    if (r == 0) r = start_servers(b);
    if (r == 0) r = side(b, &fill, true, &unused, &unused);
    return r != 0 ? r : side(b, &fill, false, &unused, &unused);
}

int rs_serve_bench_open(struct rs_serve_bench *b, const char *where, const char *runtime_dir, uint64_t size,
                        unsigned runs, unsigned depth)
{
    *b = (struct rs_serve_bench){.size = size, .runs = runs, .depth = depth, .pattern = 1};
    if (size < 1 << 20 || size % (1 << 20) != 0 || runs < 1 || runs > RS_PAIRS_MAX) return RESEAL_EINVAL;
    if (!rs_command_known("qemu-nbd") || !rs_command_known("fio"))
        return fail(b, "qemu-nbd and fio are needed", "apt-get install qemu-utils fio");
    ssize_t n = readlink("/proc/self/exe", b->program, sizeof(b->program) - 1);
    if (n <= 0) return fail(b, "/proc/self/exe", strerror(errno));
    snprintf(b->runtime_dir, sizeof(b->runtime_dir), "%s", runtime_dir);
    b->service = rs_service_pid(runtime_dir);
    if (b->service <= 0) return fail(b, "the service's process is not known", runtime_dir);
    int error = rs_temporary_folder(where, b->dir, sizeof(b->dir));
    return error != 0 ? fail(b, where, strerror(-error)) : prepare(b);
}

void rs_serve_bench_close(struct rs_serve_bench *b)
{
    rs_command_end(b->ours);
    rs_command_end(b->theirs);
    rs_temporary_folder_remove(b->dir);
}
