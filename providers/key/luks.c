/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/luks.h"

#include "offload/base/keymem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK          ((size_t)1 << 20)
#define METADATA_LUKS1 ((uint64_t)4 << 10)
#define METADATA_MAX   ((uint64_t)8 << 20)   /* two LUKS2 headers of the largest size */
#define HEADER_MAX     ((uint64_t)137 << 20) /* and the largest key slot area, 128 MiB */
#define DEVICE_MAX     ((uint64_t)1 << 62)

void rs_memfd_path(int fd, struct rs_memfd_path *out)
{
    (void)snprintf(out->text, sizeof(out->text), "/proc/self/fd/%d", fd);
}

static void no_log(int level, const char *msg, void *arg)
{
    (void)level, (void)msg, (void)arg;
}

void rs_luks_quiet(void)
{
    crypt_set_log_callback(NULL, no_log, NULL);
    /* The copy is ours alone: no lock files. Without locks libcryptsetup does not repair it either. */
    (void)crypt_metadata_locking(NULL, 0);
    /* Tokens are read here, by ourselves. */
    crypt_token_external_disable();
}

int rs_luks_error(int r, int otherwise)
{
    switch (-r) {
    case EPERM:
    case ENOENT:
        return RESEAL_EPASS;
    case ENOMEM:
        return RESEAL_ENOMEM;
    case ETXTBSY:
        return RESEAL_EBUSY;
    default:
        return otherwise;
    }
}

/* ---- what a header says ------------------------------------------------------ */

/* Hostile text becomes a name of the policy and of messages. */
static bool uuid_ok(const char *text)
{
    size_t len = text != NULL ? strlen(text) : 0;
    return len > 0 && len < 40 && strspn(text, "0123456789abcdefABCDEF-") == len;
}

static void name_cipher(struct rs_msg_luks *out, const char *text, const char *more)
{
    char name[sizeof(out->cipher)] = {0};
    (void)snprintf(name, sizeof(name), "%s%s", text, more);
    for (char *c = name; *c != '\0'; c++)
        if (*c <= ' ' || *c > '~') *c = '?';
    memcpy(out->cipher, name, sizeof(name));
}

static bool number_of(json_t *segment, const char *member, uint64_t *out)
{
    const char *text = json_string_value(json_object_get(segment, member));
    if (text == NULL || *text < '0' || *text > '9') return false;
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0';
}

static int segment_info(json_t *segment, struct rs_msg_luks *out)
{
    const char *type = json_string_value(json_object_get(segment, "type"));
    const char *cipher = json_string_value(json_object_get(segment, "encryption"));
    const char *size = json_string_value(json_object_get(segment, "size"));
    if (type == NULL || cipher == NULL || strcmp(type, "crypt") != 0) return RESEAL_EFORMAT;
    bool integrity = json_object_get(segment, "integrity") != NULL;
    name_cipher(out, cipher, integrity ? " with integrity" : "");
    if (!number_of(segment, "offset", &out->data_offset)) return RESEAL_EFORMAT;
    if (!number_of(segment, "iv_tweak", &out->first_tweak)) return RESEAL_EFORMAT;
    if (size == NULL) return RESEAL_EFORMAT;
    if (strcmp(size, "dynamic") != 0 && !number_of(segment, "size", &out->data_size)) return RESEAL_EFORMAT;
    json_int_t unit = json_integer_value(json_object_get(segment, "sector_size"));
    if (unit < 512 || unit > 4096 || !rs_is_pow2((uint64_t)unit)) return RESEAL_EFORMAT;
    out->unit = (uint32_t)unit;
    return integrity ? RESEAL_ECIPHER : 0;
}

static int luks2_info(struct crypt_device *cd, struct rs_msg_luks *out, json_t **json)
{
    uint32_t flags = 0;
    if (crypt_persistent_flags_get(cd, CRYPT_FLAGS_REQUIREMENTS, &flags) != 0) return RESEAL_EFORMAT;
    if ((flags & (CRYPT_REQUIREMENT_OFFLINE_REENCRYPT | CRYPT_REQUIREMENT_ONLINE_REENCRYPT)) != 0)
        return RESEAL_EBUSY;
    if (flags != 0) return RESEAL_ENOSUPPORT;
    const char *text = NULL;
    if (crypt_dump_json(cd, &text, 0) != 0 || text == NULL) return RESEAL_EFORMAT;
    *json = json_loads(text, 0, NULL);
    json_t *segments = json_object_get(*json, "segments"), *segment = json_object_get(segments, "0");
    return json_object_size(segments) == 1 && json_is_object(segment) ? segment_info(segment, out)
                                                                      : RESEAL_EFORMAT;
}

static void luks1_info(struct crypt_device *cd, struct rs_msg_luks *out)
{
    char text[sizeof(out->cipher)];
    const char *cipher = crypt_get_cipher(cd), *mode = crypt_get_cipher_mode(cd);
    (void)snprintf(text, sizeof(text), "%.31s-%.31s", cipher != NULL ? cipher : "", mode != NULL ? mode : "");
    name_cipher(out, text, "");
    out->data_offset = crypt_get_data_offset(cd) * 512;
    out->unit = 512;
}

int rs_luks_info(struct crypt_device *cd, struct rs_msg_luks *out, json_t **json)
{
    const char *type = crypt_get_type(cd), *uuid = crypt_get_uuid(cd);
    uint64_t metadata = 0, slots = 0;
    if (type == NULL || !uuid_ok(uuid)) return RESEAL_EFORMAT;
    memset(out, 0, sizeof(*out));
    memcpy(out->uuid, uuid, strlen(uuid));
    out->version = strcmp(type, CRYPT_LUKS2) == 0 ? 2 : 1;
    out->keyslot = -1;
    json_t *all = NULL;
    int r = 0;
    if (out->version == 2)
        r = luks2_info(cd, out, &all);
    else
        luks1_info(cd, out);
    if (json != NULL)
        *json = all;
    else
        json_decref(all);
    if (r != 0) return r;
    if (crypt_get_metadata_size(cd, &metadata, &slots) != 0) return RESEAL_EFORMAT;
    out->header_size = metadata * out->version + slots; /* LUKS2 has two copies of its metadata */
    int key = crypt_get_volume_key_size(cd);
    if (strcmp(out->cipher, "aes-xts-plain64") != 0 || (key != 32 && key != 64)) return RESEAL_ECIPHER;
    out->key_bits = (uint32_t)key * 4;
    out->step = out->unit / 512;
    return 0;
}

/* ---- a private copy of the header --------------------------------------------- */

static int copy_range(int from, int to, uint64_t at, uint64_t end)
{
    uint8_t *chunk = malloc(CHUNK);
    int r = chunk != NULL ? 0 : RESEAL_ENOMEM;
    while (r == 0 && at < end) {
        size_t len = RS_MIN(end - at, CHUNK);
        if (rs_pread_full(from, chunk, len, at) != 0) r = RESEAL_EIO;
        if (r == 0 && rs_pwrite_full(to, chunk, len, at) != 0) r = RESEAL_ENOMEM;
        at += len;
    }
    free(chunk);
    return r;
}

static int copy_to(struct rs_luks_copy *h, uint64_t from, uint64_t to)
{
    to = RS_MIN(to, h->size);
    return from < to ? copy_range(h->from, h->memfd, from, to) : 0;
}

/* Leaves the position as it was: the descriptor shares it with the client's. */
static off_t device_size(int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0) return -1;
    if (S_ISREG(st.st_mode)) return st.st_size;
    off_t at = lseek(fd, 0, SEEK_CUR), end = at < 0 ? -1 : lseek(fd, 0, SEEK_END);
    if (end >= 0) (void)lseek(fd, at, SEEK_SET);
    return S_ISBLK(st.st_mode) ? end : -1;
}

/* Bytes that hold all metadata, as the first header says; where it says nothing, as much as there can be. */
static uint64_t metadata_end(int fd)
{
    static const uint8_t magic[] = {'L', 'U', 'K', 'S', 0xba, 0xbe, 0};
    uint8_t first[16];
    if (rs_pread_full(fd, first, sizeof(first), 0) != 0 || memcmp(first, magic, sizeof(magic)) != 0)
        return METADATA_MAX;
    if (first[7] == 1) return METADATA_LUKS1;
    uint64_t len = rs_load_be64(first + 8);
    return first[7] == 2 && rs_is_pow2(len) && len <= METADATA_MAX / 2 ? 2 * len : METADATA_MAX;
}

/* As large as the device, so that its size is checked as on the device; only what is needed has contents. */
static int copy_start(struct rs_luks_copy *h)
{
    off_t size = device_size(h->from);
    if (size < 0) return RESEAL_EINVAL;
    h->size = (uint64_t)size;
    if (h->size > DEVICE_MAX) return RESEAL_EFORMAT;
    h->memfd = memfd_create("luks-header", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (h->memfd < 0 || ftruncate(h->memfd, size) != 0) return RESEAL_ENOMEM;
    return copy_to(h, 0, metadata_end(h->from));
}

int rs_luks_copy_load(int from, struct rs_luks_copy *h, struct rs_msg_luks *info)
{
    struct rs_memfd_path path;
    *h = (struct rs_luks_copy){.from = from, .memfd = -1};
    int r = copy_start(h);
    if (r != 0) return r;
    rs_memfd_path(h->memfd, &path);
    if (crypt_init(&h->cd, path.text) != 0) return RESEAL_EFORMAT;
    r = crypt_load(h->cd, CRYPT_LUKS, NULL);
    r = r != 0 ? (r == -ENOMEM ? RESEAL_ENOMEM : RESEAL_EFORMAT) : rs_luks_info(h->cd, info, &h->json);
    return (r == 0 || r == RESEAL_ECIPHER) && info->header_size > HEADER_MAX ? RESEAL_EFORMAT : r;
}

int rs_luks_copy_slots(struct rs_luks_copy *h)
{
    int r = 0, max = crypt_keyslot_max(crypt_get_type(h->cd));
    for (int slot = 0; slot < max && r == 0; slot++) {
        uint64_t at, len;
        crypt_keyslot_info state = crypt_keyslot_status(h->cd, slot);
        if (state == CRYPT_SLOT_INACTIVE || state == CRYPT_SLOT_INVALID) continue;
        if (crypt_keyslot_area(h->cd, slot, &at, &len) != 0 || !rs_range_ok(at, len, HEADER_MAX)) continue;
        r = copy_to(h, at, at + len);
    }
    return r;
}

void rs_luks_copy_free(struct rs_luks_copy *h)
{
    crypt_free(h->cd);
    h->cd = NULL;
    json_decref(h->json);
    h->json = NULL;
    rs_cleanup_close(&h->memfd);
}

int rs_luks_volume_key(struct crypt_device *cd, int slot, const void *pass, size_t pass_len,
                       struct rs_source_yield *out)
{
    size_t len = sizeof(out->key);
    if (pass_len == 0) return RESEAL_EPASS;
    slot = crypt_volume_key_get(cd, slot, (char *)out->key, &len, pass, pass_len);
    if (slot < 0) return rs_luks_error(slot, RESEAL_EFORMAT);
    if (len * 4 != out->luks.key_bits || !rs_raw_key_ok(RESEAL_XTS, out->key, len)) return RESEAL_EKEYBAD;
    out->luks.keyslot = slot;
    out->key_len = (uint32_t)len;
    return 0;
}

static int get_key(struct crypt_device *cd, int passphrase_fd, struct rs_source_yield *out)
{
    struct rs_secret_text pass;
    int r = rs_secret_read(passphrase_fd, RS_PASSPHRASE_MAX, &pass);
    if (r != 0) return r;
    r = rs_luks_volume_key(cd, CRYPT_ANY_SLOT, pass.bytes, pass.len, out);
    rs_secret_free(&pass);
    return r;
}

static int fetch_luks(const struct rs_source_order *order, const int *fds, struct rs_source_yield *out,
                      int *out_fd)
{
    (void)out_fd;
    struct rs_luks_copy h;
    rs_luks_quiet();
    int r = rs_luks_copy_load(fds[0], &h, &out->luks);
    if (r == RESEAL_ECIPHER && order->want_key == 0) r = 0;
    if (r == 0 && order->want_key != 0) {
        r = rs_luks_copy_slots(&h);
        if (r == 0) r = get_key(h.cd, fds[1], out);
    }
    rs_luks_copy_free(&h);
    return r;
}

const struct rs_source rs_source_luks = {.name = "luks", .nfds = 2, .in_child = true, .fetch = fetch_luks};
