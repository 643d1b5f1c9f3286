/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/transcode.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/command.h"
#include "bench/leave-nothing.h"
#include "bench/pairs.h"
#include "bench/peers.h"
#include "bench/private-service.h"
#include "reseal/reseal.h"

#define PIECE       (1u << 20)
#define DATA_OFFSET (16ull << 20) /* of the LUKS2 image */
#define UNIT        4096u
#define KEY_LEN     64u
#define NAME_ROOM   (PATH_MAX + 32)

/* ---- files --------------------------------------------------------------------- */

static void name(const struct rs_transcode_bench *b, const char *file, char out[NAME_ROOM])
{
    snprintf(out, NAME_ROOM, "%s/%s", b->dir, file);
}

static int fail(struct rs_transcode_bench *b, const char *what, const char *why)
{
    snprintf(b->why, sizeof(b->why), "%.200s: %.300s", what, why);
    return RESEAL_EIO;
}

/* Random content: nothing that a file system or a program could leave out. */
static int write_random(struct rs_transcode_bench *b, const char *file, uint64_t size)
{
    char path[NAME_ROOM];
    name(b, file, path);
    RS_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    RS_FREE uint8_t *piece = malloc(PIECE);
    if (fd < 0 || piece == NULL) return fail(b, path, strerror(errno));
    for (uint64_t at = 0; at < size; at += PIECE) {
        size_t len = (size_t)RS_MIN(size - at, (uint64_t)PIECE);
        if (getrandom(piece, len, 0) != (ssize_t)len) return fail(b, path, "no random bytes");
        int r = rs_write_full(fd, piece, len);
        if (r != 0) return fail(b, path, strerror(-r));
    }
    return 0;
}

static int write_secret(struct rs_transcode_bench *b, const char *file)
{
    char path[NAME_ROOM];
    name(b, file, path);
    int r = rs_temporary_phrase_file(path);
    return r == 0 ? 0 : fail(b, path, strerror(-r));
}

int rs_transcode_bench_open(struct rs_transcode_bench *b, const char *where, const char *runtime_dir,
                            uint64_t size, unsigned runs)
{
    *b = (struct rs_transcode_bench){.size = size, .runs = runs};
    if (size < PIECE || size % PIECE != 0 || runs < 1 || runs > RS_PAIRS_MAX) return RESEAL_EINVAL;
    if (!rs_command_known("qemu-img") || !rs_command_known("cryptsetup"))
        return fail(b, "qemu-img and cryptsetup are needed", "apt-get install qemu-utils cryptsetup-bin");
    ssize_t n = readlink("/proc/self/exe", b->program, sizeof(b->program) - 1);
    if (n <= 0) return fail(b, "/proc/self/exe", strerror(errno));
    snprintf(b->runtime_dir, sizeof(b->runtime_dir), "%s", runtime_dir);
    b->service = rs_service_pid(runtime_dir);
    if (b->service <= 0) return fail(b, "the service's process is not known", runtime_dir);
    int error = rs_temporary_folder(where, b->dir, sizeof(b->dir));
    if (error != 0) return fail(b, where, strerror(-error));
    int r = write_secret(b, "old.pass");
    return r != 0 ? r : write_secret(b, "new.pass");
}

void rs_transcode_bench_close(struct rs_transcode_bench *b)
{
    rs_temporary_folder_remove(b->dir);
}

/* ---- programs -------------------------------------------------------------------- */

/* Texts of an argument vector that are made of the scratch folder's names. */
struct names {
    char old_pass[NAME_ROOM], new_pass[NAME_ROOM], old_secret[NAME_ROOM + 64], new_secret[NAME_ROOM + 64];
    char src[NAME_ROOM + 64], dst[NAME_ROOM + 64];
    char image[NAME_ROOM], plain[NAME_ROOM];
};

static void fill_names(const struct rs_transcode_bench *b, struct names *n)
{
    name(b, "old.pass", n->old_pass);
    name(b, "new.pass", n->new_pass);
    name(b, "image", n->image);
    name(b, "plain", n->plain);
    snprintf(n->old_secret, sizeof(n->old_secret), "secret,id=old,file=%s", n->old_pass);
    snprintf(n->new_secret, sizeof(n->new_secret), "secret,id=new,file=%s", n->new_pass);
}

static int run(struct rs_transcode_bench *b, const char *const *argv, double *cpu, double *seconds)
{
    struct rs_command_result result;
    double before = rs_cpu_seconds_of_tree(b->service);
    if (rs_command_run(argv, &result) != 0) return fail(b, argv[0], result.why);
    *cpu = result.cpu_seconds + rs_cpu_seconds_of_tree(b->service) - before;
    *seconds = result.seconds;
    return 0;
}

/* For preparation and verification, whose time nobody counts. */
static int just_run(struct rs_transcode_bench *b, const char *const *argv)
{
    double unused;
    return run(b, argv, &unused, &unused);
}

/* ---- out of place ------------------------------------------------------------------ */

static int qemu_create(struct rs_transcode_bench *b, const char *secret, const char *id, const char *path)
{
    char size[32], options[64];
    snprintf(size, sizeof(size), "%llu", (unsigned long long)b->size);
    snprintf(options, sizeof(options), "key-secret=%s,iter-time=10", id);
    const char *const argv[] = {"qemu-img", "create", "-q",    "-f", "luks", "--object",
                                secret,     "-o",     options, path, size,   NULL};
    return just_run(b, argv);
}

static void image_options(const struct rs_transcode_bench *b, const char *file, const char *id, char *out,
                          size_t len)
{
    snprintf(out, len, "driver=luks,key-secret=%s,file.filename=%s/%s", id, b->dir, file);
}

static int qemu_convert(struct rs_transcode_bench *b, const struct names *n, double *cpu, double *seconds)
{
    const char *const argv[] = {"qemu-img",
                                "convert",
                                "-n",
                                "-t",
                                b->cached ? "unsafe" : "none",
                                "-T",
                                b->cached ? "writeback" : "none",
                                "--object",
                                n->old_secret,
                                "--object",
                                n->new_secret,
                                "--image-opts",
                                "--target-image-opts",
                                n->src,
                                n->dst,
                                NULL};
    return run(b, argv, cpu, seconds);
}

static int qemu_compare(struct rs_transcode_bench *b, const struct names *n)
{
    const char *const argv[] = {"qemu-img",    "compare",      "-q",   "--object", n->old_secret, "--object",
                                n->new_secret, "--image-opts", n->src, n->dst,     NULL};
    return just_run(b, argv);
}

static int our_convert(struct rs_transcode_bench *b, const struct names *n, double *cpu, double *seconds)
{
    char from[NAME_ROOM + 8], to[NAME_ROOM + 8];
    snprintf(from, sizeof(from), "luks:%s/src", b->dir);
    snprintf(to, sizeof(to), "luks:%s/dst", b->dir);
    /* No flush and no state, as `qemu-img convert` has none; the page cache, or O_DIRECT, as it has here. */
    const char *const argv[] = {b->program,
                                "transcode",
                                "--runtime-dir",
                                b->runtime_dir,
                                "--quiet",
                                "--existing",
                                b->cached ? "--buffered" : "--direct",
                                "--no-sync",
                                "--luks-version",
                                "1",
                                "--pbkdf-ms",
                                "10",
                                "--source-passphrase-file",
                                n->old_pass,
                                "--destination-passphrase-file",
                                n->new_pass,
                                from,
                                to,
                                NULL};
    return run(b, argv, cpu, seconds);
}

static int prepare_out_of_place(struct rs_transcode_bench *b, struct names *n)
{
    char src[NAME_ROOM], dst[NAME_ROOM];
    double unused;
    fill_names(b, n);
    name(b, "src", src);
    name(b, "dst", dst);
    image_options(b, "src", "old", n->src, sizeof(n->src));
    image_options(b, "dst", "new", n->dst, sizeof(n->dst));
    int r = qemu_create(b, n->old_secret, "old", src);
    if (r == 0) r = qemu_create(b, n->new_secret, "new", dst);
    if (r == 0) r = write_random(b, "plain", b->size);
    if (r != 0) return r;
    const char *const fill[] = {"qemu-img", "convert",  "-n",          "-f",
                                "raw",      "--object", n->old_secret, "--target-image-opts",
                                n->plain,   n->src,     NULL};
    r = just_run(b, fill);
    unlink(n->plain);
    /* Allocates the target and warms both. */
    if (r == 0) r = qemu_convert(b, n, &unused, &unused);
    rs_pairs_settle(b->dir, "src");
    rs_pairs_settle(b->dir, "dst");
    return r;
}

int rs_transcode_bench_out_of_place(struct rs_transcode_bench *b, struct rs_result *out)
{
    struct names n;
    struct rs_pairs p;
    double seconds = 1, unused;
    rs_result_init(out, b->cached ? "transcode-page-cache" : "transcode");
    out->from = out->to = "luks1";
    out->unit = 512;
    out->bytes = b->size;
    out->key_bits = 256;
    int r = prepare_out_of_place(b, &n);
    for (unsigned i = 0; r == 0 && i < b->runs; i++) {
        r = our_convert(b, &n, &p.ours[i], &seconds);
        p.gbps[i] = (double)b->size / seconds / 1e9;
        if (r == 0 && qemu_compare(b, &n) != 0) return 0; /* out->verified is false */
        rs_pairs_settle(b->dir, "dst");
        if (r == 0) r = qemu_convert(b, &n, &p.theirs[i], &unused);
        rs_pairs_settle(b->dir, "dst");
    }
    if (r == 0) rs_pairs_conclude(&p, b->runs, b->size, "qemu-img convert -n", out);
    return r;
}

/* ---- in place ------------------------------------------------------------------------ */

/* The volume key, by cryptsetup, through a file in the scratch folder. */
static int dump_key(struct rs_transcode_bench *b, const struct names *n, uint8_t key[KEY_LEN])
{
    char file[NAME_ROOM];
    name(b, "volume.key", file);
    const char *const argv[] = {
        "cryptsetup", "luksDump", "-q", "--dump-volume-key", "--volume-key-file", file, "--key-file",
        n->old_pass,  n->image,   NULL};
    int r = just_run(b, argv);
    if (r != 0) return r;
    RS_CLOSE int fd = open(file, O_RDONLY | O_CLOEXEC);
    r = fd < 0 ? -errno : rs_pread_full(fd, key, KEY_LEN, 0);
    unlink(file);
    return r == 0 ? 0 : fail(b, "volume key", strerror(-r));
}

static int digest_data(struct rs_transcode_bench *b, int fd, struct rs_peer_side *open_side, EVP_MD_CTX *md)
{
    RS_FREE uint8_t *piece = malloc(PIECE);
    if (piece == NULL) return RESEAL_ENOMEM;
    for (uint64_t at = 0; at < b->size; at += PIECE) {
        struct rs_side side = {.cipher = RS_XTS, .unit = UNIT, .step = UNIT / 512, .tweak_lo = at / 512};
        int r = rs_pread_full(fd, piece, PIECE, DATA_OFFSET + at);
        if (r != 0) return fail(b, "image", strerror(-r));
        r = rs_peer_run(open_side, &side, piece, piece, PIECE, NULL, 0);
        if (r != 0 || EVP_DigestUpdate(md, piece, PIECE) != 1) return fail(b, "image", "cannot be decrypted");
    }
    return 0;
}

/* What is in the image, by cryptsetup and OpenSSL: independent of everything that is measured. */
static int plaintext_digest(struct rs_transcode_bench *b, const struct names *n, uint8_t digest[32])
{
    uint8_t key[KEY_LEN];
    int r = dump_key(b, n, key);
    if (r != 0) return r;
    struct rs_peer_side *side = rs_peer_open(RS_PEER_OPENSSL, RS_XTS, 256, false, key, sizeof(key));
    rs_wipe(key, sizeof(key));
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    RS_CLOSE int fd = open(n->image, O_RDONLY | O_CLOEXEC);
    if (side == NULL || md == NULL || fd < 0 || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1)
        r = fail(b, "image", "cannot be read");
    if (r == 0) r = digest_data(b, fd, side, md);
    if (r == 0 && EVP_DigestFinal_ex(md, digest, NULL) != 1) r = RESEAL_ENOMEM;
    EVP_MD_CTX_free(md);
    rs_peer_close(side);
    return r;
}

static int prepare_in_place(struct rs_transcode_bench *b, struct names *n)
{
    fill_names(b, n);
    int r = write_random(b, "image", DATA_OFFSET + b->size);
    if (r != 0) return r;
    const char *const argv[] = {"cryptsetup",
                                "luksFormat",
                                "-q",
                                "--type",
                                "luks2",
                                "--cipher",
                                "aes-xts-plain64",
                                "--key-size",
                                "512",
                                "--sector-size",
                                "4096",
                                "--offset",
                                "32768",
                                "--pbkdf",
                                "pbkdf2",
                                "--pbkdf-force-iterations",
                                "1000",
                                n->image,
                                n->old_pass,
                                NULL};
    r = just_run(b, argv);
    rs_pairs_settle(b->dir, "image");
    return r;
}

static int our_reencrypt(struct rs_transcode_bench *b, const struct names *n, double *cpu, double *seconds)
{
    char image[NAME_ROOM + 8];
    snprintf(image, sizeof(image), "luks:%s", n->image);
    const char *const argv[] = {b->program,
                                "transcode",
                                "--runtime-dir",
                                b->runtime_dir,
                                "--quiet",
                                "--in-place",
                                "--direct",
                                "--pbkdf",
                                "pbkdf2",
                                "--pbkdf-ms",
                                "10",
                                "--source-passphrase-file",
                                n->old_pass,
                                "--destination-passphrase-file",
                                n->old_pass,
                                image,
                                NULL};
    return run(b, argv, cpu, seconds);
}

static int cryptsetup_reencrypt(struct rs_transcode_bench *b, const struct names *n, double *cpu)
{
    double unused;
    const char *const argv[] = {
        "cryptsetup",     "reencrypt", "-q",     "--force-offline-reencrypt", "--resilience", "journal",
        "--use-directio", "--pbkdf",   "pbkdf2", "--pbkdf-force-iterations",  "1000",         "--key-file",
        n->old_pass,      n->image,    NULL};
    return run(b, argv, cpu, &unused);
}

int rs_transcode_bench_in_place(struct rs_transcode_bench *b, struct rs_result *out)
{
    struct names n;
    struct rs_pairs p;
    uint8_t want[32], got[32];
    double seconds = 1;
    rs_result_init(out, "transcode-in-place");
    out->from = out->to = "luks2";
    out->unit = UNIT;
    out->bytes = b->size;
    out->key_bits = 256;
    int r = prepare_in_place(b, &n);
    if (r == 0) r = plaintext_digest(b, &n, want);
    for (unsigned i = 0; r == 0 && i < b->runs; i++) {
        r = our_reencrypt(b, &n, &p.ours[i], &seconds);
        p.gbps[i] = (double)b->size / seconds / 1e9;
        if (r == 0) r = plaintext_digest(b, &n, got);
        if (r == 0 && memcmp(want, got, sizeof(got)) != 0) return 0; /* out->verified is false */
        rs_pairs_settle(b->dir, "image");
        if (r == 0) r = cryptsetup_reencrypt(b, &n, &p.theirs[i]);
        rs_pairs_settle(b->dir, "image");
    }
    if (r == 0) rs_pairs_conclude(&p, b->runs, b->size, "cryptsetup reencrypt --resilience journal", out);
    return r;
}
