/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/luks.h"

#include "offload/base/clock.h"
#include "offload/base/keymem.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/rand.h>

#define OFFSET_MAX    ((uint64_t)1 << 30)
#define DEVICE_MAX    ((uint64_t)1 << 62)
#define LEAST_DEVICE  ((uint64_t)64 << 20) /* room for a default header while it is made */
#define PBKDF_MS_MAX  30000u
#define PBKDF_MEM_KIB (1u << 20)
#define SECTOR        512u

#define ITERATIONS_MIN UINT64_C(1000) /* what the formats demand */
#define ITERATIONS_MAX UINT64_C(0x7fffffff)

int rs_luks_settle(struct rs_msg_luks_format *f)
{
    if (f->version == 0) f->version = 2;
    if (f->version > 2) return RESEAL_EINVAL;
    if (f->unit == 0) f->unit = f->version == 2 ? 4096 : SECTOR;
    if (f->unit < SECTOR || f->unit > 4096 || !rs_is_pow2(f->unit)) return RESEAL_EINVAL;
    if (f->version == 1 && (f->unit != SECTOR || f->label[0] != '\0' || f->pbkdf == 2)) return RESEAL_EINVAL;
    if (f->key_bits == 0) f->key_bits = 256;
    if (f->key_bits != 128 && f->key_bits != 256) return RESEAL_EINVAL;
    if (f->data_offset > OFFSET_MAX || f->data_offset % SECTOR != 0) return RESEAL_EINVAL;
    if (f->version == 2 && f->data_offset % 4096 != 0) return RESEAL_EINVAL;
    if (f->data_size > DEVICE_MAX || f->data_size % f->unit != 0) return RESEAL_EINVAL;
    if (f->pbkdf_ms > PBKDF_MS_MAX || f->pbkdf > 2) return RESEAL_EINVAL;
    if (memchr(f->label, '\0', sizeof(f->label)) == NULL) return RESEAL_EINVAL;
    return 0;
}

/* PBKDF2 iterations for a time, by a short trial: libcryptsetup's own takes a second or two. */
static uint32_t pbkdf2_iterations(uint32_t ms)
{
    const int trial = 20000;
    uint8_t salt[32] = {0}, out[32];
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 3; i++) {
        uint64_t from = rs_now_ns();
        (void)PKCS5_PBKDF2_HMAC("trial", 5, salt, sizeof(salt), trial, EVP_sha256(), sizeof(out), out);
        best = RS_MIN(best, rs_now_ns() - from);
    }
    uint64_t n = ms * UINT64_C(1000000) * (uint64_t)trial / RS_MAX(best, 1);
    return (uint32_t)RS_MIN(RS_MAX(n, ITERATIONS_MIN), ITERATIONS_MAX);
}

int rs_luks_set_pbkdf(struct crypt_device *cd, uint32_t version, uint32_t pbkdf, uint32_t ms)
{
    if (pbkdf == 0 && ms == 0) return crypt_set_pbkdf_type(cd, NULL) == 0 ? 0 : RESEAL_EINVAL;
    const struct crypt_pbkdf_type *usual = crypt_get_pbkdf_default(version == 2 ? CRYPT_LUKS2 : CRYPT_LUKS1);
    if (usual == NULL) return RESEAL_ENOSUPPORT;
    struct crypt_pbkdf_type p = *usual;
    bool argon = pbkdf == 2 || (pbkdf == 0 && version == 2);
    p.type = argon ? CRYPT_KDF_ARGON2ID : CRYPT_KDF_PBKDF2;
    p.hash = "sha256";
    if (ms != 0) p.time_ms = ms;
    p.max_memory_kb = argon ? RS_MIN(RS_MAX(p.max_memory_kb, 65536u), PBKDF_MEM_KIB) : 0;
    p.parallel_threads = argon ? RS_MAX(p.parallel_threads, 1u) : 0;
    if (!argon && ms != 0) {
        p.iterations = pbkdf2_iterations(ms);
        p.flags |= CRYPT_PBKDF_NO_BENCHMARK;
    }
    return crypt_set_pbkdf_type(cd, &p) == 0 ? 0 : RESEAL_EINVAL;
}

int rs_luks_format(struct crypt_device *cd, const struct rs_msg_luks_format *f, const char *uuid,
                   const uint8_t *key, size_t key_len)
{
    struct crypt_params_luks2 two = {.sector_size = f->unit, .label = f->label[0] != '\0' ? f->label : NULL};
    struct crypt_params_luks1 one = {.hash = "sha256"};
    void *params = f->version == 2 ? (void *)&two : (void *)&one;
    if (f->data_offset != 0 && crypt_set_data_offset(cd, f->data_offset / SECTOR) != 0) return RESEAL_EINVAL;
    int r = crypt_format(cd, f->version == 2 ? CRYPT_LUKS2 : CRYPT_LUKS1, "aes", "xts-plain64", uuid,
                         (const char *)key, key_len, params);
    return r < 0 ? rs_luks_error(r, RESEAL_EINVAL) : 0;
}

int rs_luks_device(const struct rs_msg_luks_format *f)
{
    uint64_t size = f->data_offset + f->data_size;
    int fd = memfd_create("luks-header", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return RESEAL_ENOMEM;
    if (ftruncate(fd, (off_t)RS_MAX(size, LEAST_DEVICE)) == 0) return fd;
    close(fd);
    return RESEAL_EINVAL;
}

int rs_luks_seal(int fd, uint64_t header_size)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
    return ftruncate(fd, (off_t)header_size) == 0 && fcntl(fd, F_ADD_SEALS, seals) == 0 ? 0 : RESEAL_EIO;
}

static int make_header(struct crypt_device *cd, const struct rs_msg_luks_format *f,
                       const struct rs_secret_text *pass, struct rs_source_yield *out)
{
    int r = rs_luks_set_pbkdf(cd, f->version, f->pbkdf, f->pbkdf_ms);
    if (r == 0) r = rs_luks_format(cd, f, NULL, out->key, out->key_len);
    if (r != 0) return r;
    int slot = crypt_keyslot_add_by_volume_key(cd, 0, (const char *)out->key, out->key_len,
                                               (const char *)pass->bytes, pass->len);
    if (slot < 0) return rs_luks_error(slot, RESEAL_EINVAL);
    r = rs_luks_info(cd, &out->luks, NULL);
    out->luks.keyslot = slot;
    return r;
}

static int format_memfd(int fd, const struct rs_msg_luks_format *f, const struct rs_secret_text *pass,
                        struct rs_source_yield *out)
{
    struct crypt_device *cd = NULL;
    struct rs_memfd_path path;
    rs_memfd_path(fd, &path);
    if (crypt_init(&cd, path.text) != 0) return RESEAL_EIO;
    int r = make_header(cd, f, pass, out);
    crypt_free(cd);
    return r == 0 ? rs_luks_seal(fd, out->luks.header_size) : r;
}

static int fetch_luks_format(const struct rs_source_order *order, const int *fds, struct rs_source_yield *out,
                             int *out_fd)
{
    struct rs_msg_luks_format f = order->format;
    struct rs_secret_text pass;
    int r = rs_luks_settle(&f);
    if (r != 0) return r;
    rs_luks_quiet();
    out->key_len = f.key_bits / 4;
    if (RAND_priv_bytes(out->key, (int)out->key_len) != 1) return RESEAL_ENOMEM;
    if (!rs_raw_key_ok(RESEAL_XTS, out->key, out->key_len)) return RESEAL_ENOMEM;
    r = rs_secret_read(fds[0], RS_PASSPHRASE_MAX, &pass);
    if (r != 0) return r;
    int fd = rs_luks_device(&f);
    r = fd < 0 ? fd : pass.len == 0 ? RESEAL_EPASS : format_memfd(fd, &f, &pass, out);
    rs_secret_free(&pass);
    if (r == 0)
        *out_fd = fd;
    else
        rs_cleanup_close(&fd);
    return r;
}

const struct rs_source rs_source_luks_format = {
    .name = "luks-format", .nfds = 1, .in_child = true, .fetch = fetch_luks_format};
