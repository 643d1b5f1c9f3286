/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "offload/cli/transcode.h"

enum option_id {
    OPT_SRC_FILE = 256,
    OPT_SRC_FD,
    OPT_DST_FILE,
    OPT_DST_FD,
    OPT_FROM_PROVIDER,
    OPT_FROM_KEY,
    OPT_TO_PROVIDER,
    OPT_TO_KEY,
    OPT_RUNTIME,
    OPT_TENANT,
    OPT_JOURNAL,
    OPT_IN_PLACE,
    OPT_RESUME,
    OPT_FORCE,
    OPT_EXISTING,
    OPT_DIRECT,
    OPT_BUFFERED,
    OPT_NO_SYNC,
    OPT_VERIFY,
    OPT_JSON,
    OPT_FILL,
    OPT_KEEP,
    OPT_IO,
    OPT_CHUNK,
    OPT_DEPTH,
    OPT_ZONE,
    OPT_VERSION,
    OPT_UNIT,
    OPT_BITS,
    OPT_PBKDF,
    OPT_PBKDF_MS,
    OPT_LABEL,
};

static const struct option options[] = {
    {"source-passphrase-file", required_argument, NULL, OPT_SRC_FILE},
    {"source-passphrase-fd", required_argument, NULL, OPT_SRC_FD},
    {"destination-passphrase-file", required_argument, NULL, OPT_DST_FILE},
    {"destination-passphrase-fd", required_argument, NULL, OPT_DST_FD},
    {"from-provider", required_argument, NULL, OPT_FROM_PROVIDER},
    {"from-key", required_argument, NULL, OPT_FROM_KEY},
    {"to-provider", required_argument, NULL, OPT_TO_PROVIDER},
    {"to-key", required_argument, NULL, OPT_TO_KEY},
    {"runtime-dir", required_argument, NULL, OPT_RUNTIME},
    {"tenant", required_argument, NULL, OPT_TENANT},
    {"journal", required_argument, NULL, OPT_JOURNAL},
    {"in-place", no_argument, NULL, OPT_IN_PLACE},
    {"resume", no_argument, NULL, OPT_RESUME},
    {"force", no_argument, NULL, OPT_FORCE},
    {"existing", no_argument, NULL, OPT_EXISTING},
    {"direct", no_argument, NULL, OPT_DIRECT},
    {"buffered", no_argument, NULL, OPT_BUFFERED},
    {"no-sync", no_argument, NULL, OPT_NO_SYNC},
    {"verify", no_argument, NULL, OPT_VERIFY},
    {"json", no_argument, NULL, OPT_JSON},
    {"quiet", no_argument, NULL, 'q'},
    {"fill-holes", no_argument, NULL, OPT_FILL},
    {"keep-holes", no_argument, NULL, OPT_KEEP},
    {"io", required_argument, NULL, OPT_IO},
    {"chunk", required_argument, NULL, OPT_CHUNK},
    {"depth", required_argument, NULL, OPT_DEPTH},
    {"zone", required_argument, NULL, OPT_ZONE},
    {"luks-version", required_argument, NULL, OPT_VERSION},
    {"unit", required_argument, NULL, OPT_UNIT},
    {"key-bits", required_argument, NULL, OPT_BITS},
    {"pbkdf", required_argument, NULL, OPT_PBKDF},
    {"pbkdf-ms", required_argument, NULL, OPT_PBKDF_MS},
    {"label", required_argument, NULL, OPT_LABEL},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static const char help_text[] =
    "usage: reseal transcode [OPTIONS] SRC DST\n"
    "       reseal transcode --in-place [OPTIONS] luks:FILE\n\n"
    "Re-encrypts a disk image under another key. The keys stay in the service.\n\n"
    "SRC and DST\n"
    "  luks:FILE        LUKS1 or LUKS2 with aes-xts-plain64\n"
    "  xts:FILE,key=KEYFILE[,name=NAME][,unit=512][,offset=0][,tweak=0][,step=1][,size=BYTES]\n"
    "                   raw AES-XTS; KEYFILE holds 32 or 64 bytes\n"
    "  plain:FILE[,offset=0][,size=BYTES]\n"
    "                   not encrypted; as a destination it needs the grant plain-out\n"
    "  FILE can be a block device. A comma in a name is written twice.\n\n"
    "Pass phrases (asked for on the terminal where none of these is given)\n"
    "  --source-passphrase-file FILE, --source-passphrase-fd N\n"
    "  --destination-passphrase-file FILE, --destination-passphrase-fd N\n\n"
    "Keys of key providers (a LUKS2 source that names its key needs no option and no pass phrase)\n"
    "  --to-provider NAME   the new header's key slot belongs to this key provider; with a destination pass\n"
    "                       phrase its owner can open it too\n"
    "  --to-key ID          one of its keys; default: a new one\n"
    "  --from-provider NAME, --from-key ID\n"
    "                       of a LUKS1 source, which cannot name its key\n\n"
    "The new LUKS header\n"
    "  --luks-version 1|2   default: 2; in place: that of the image\n"
    "  --unit BYTES         data unit, 512 to 4096; default: 4096 (LUKS1: 512); in place: that of the image\n"
    "  --key-bits 128|256   default: 256\n"
    "  --pbkdf NAME         pbkdf2 or argon2id; default: argon2id (LUKS1: pbkdf2)\n"
    "  --pbkdf-ms MS        time of the pass phrase derivation\n"
    "  --label TEXT         LUKS2\n\n"
    "What is written, and how\n"
    "  --in-place           overwrite the image itself, with a journal beside it; resumes when one is there\n"
    "  --resume             insist that there is something to resume\n"
    "  --journal PATH       default: FILE.reseal-journal in place, DST.reseal-state else; block devices need "
    "it\n"
    "  --existing           write into a destination that is there, and keep its allocation\n"
    "  --force              replace a destination that is there\n"
    "  --fill-holes         re-encrypt holes of an encrypted source too: bit-exact, not sparse\n"
    "  --keep-holes         leave holes of a plain source as holes: they decrypt to noise\n"
    "  --verify             read the destination back and compare\n"
    "  --direct, --buffered O_DIRECT or page cache; default: page cache, in place O_DIRECT where it works\n"
    "  --no-sync            do not flush and keep no state: fast, and nothing to resume from\n"
    "  --io uring|pread     default: io_uring where the kernel allows it\n"
    "  --chunk BYTES, --depth N, --zone BYTES\n"
    "                       bytes of a job, jobs in flight, bytes of a journalled zone\n\n"
    "  --json               the result as one JSON object on stdout, progress as JSON lines on stderr\n"
    "  -q, --quiet          no progress\n"
    "  --runtime-dir DIR    the service's folder ($RESEAL_RUNTIME_DIR, /run/reseal)\n"
    "  --tenant NAME        the tenant to act for, where a user has several\n"
    "  -h, --help\n\n"
    "exit codes: 0 done, 1 failed, 2 usage, 3 refused, 4 wrong pass phrase or key, 5 not LUKS, damaged "
    "or\n"
    "not supported, 6 input/output error or no space, 7 service gone, 130 interrupted (run again to "
    "resume)\n\n"
    "example: reseal transcode --source-passphrase-file old.pass --destination-passphrase-file new.pass \\\n"
    "             luks:disk.luks luks:disk.new\n";

void rs_tc_help(void)
{
    fputs(help_text, stdout);
}

static int take_u32(const char *name, const char *text, uint32_t min, uint32_t max, uint32_t *out,
                    struct rs_failure *f)
{
    uint64_t v;
    if (rs_cli_bytes(text, max, &v) != 0 || v < min)
        return rs_failure_set(f, RS_EXIT_USAGE, "--%s %s: a number from %u to %u is wanted", name, text, min,
                              max);
    *out = (uint32_t)v;
    return 0;
}

static int take_fd(const char *name, const char *text, int *out, struct rs_failure *f)
{
    uint32_t fd = 0;
    int code = take_u32(name, text, 0, 1u << 20, &fd, f);
    if (code == 0) *out = (int)fd;
    return code;
}

static int take_power(const char *name, const char *text, uint32_t min, uint32_t max, uint32_t *out,
                      struct rs_failure *f)
{
    int code = take_u32(name, text, min, max, out, f);
    if (code == 0 && !rs_is_pow2(*out))
        return rs_failure_set(f, RS_EXIT_USAGE, "--%s %s: a power of two is wanted", name, text);
    return code;
}

static int take_format(struct rs_tc_options *o, int id, const char *text, struct rs_failure *f)
{
    switch (id) {
    case OPT_VERSION:
        return take_u32("luks-version", text, 1, 2, &o->format.version, f);
    case OPT_UNIT:
        return take_power("unit", text, 512, 4096, &o->format.unit, f);
    case OPT_BITS:
        if (strcmp(text, "128") != 0 && strcmp(text, "256") != 0)
            return rs_failure_set(f, RS_EXIT_USAGE, "--key-bits %s: 128 or 256 is wanted", text);
        o->format.key_bits = text[0] == '1' ? 128 : 256;
        return 0;
    case OPT_PBKDF:
        if (strcmp(text, "pbkdf2") != 0 && strcmp(text, "argon2id") != 0)
            return rs_failure_set(f, RS_EXIT_USAGE, "--pbkdf %s: pbkdf2 or argon2id is wanted", text);
        o->format.pbkdf = text[0] == 'p' ? 1 : 2;
        return 0;
    case OPT_PBKDF_MS:
        return take_u32("pbkdf-ms", text, 1, 30000, &o->format.pbkdf_ms, f);
    default:
        if (strlen(text) > 47) return rs_failure_set(f, RS_EXIT_USAGE, "--label: at most 47 characters");
        o->format.label = text;
        return 0;
    }
}

static int take_io(struct rs_tc_options *o, const char *text, struct rs_failure *f)
{
    if (strcmp(text, "uring") == 0)
        o->io = RS_IO_URING;
    else if (strcmp(text, "pread") == 0)
        o->io = RS_IO_SYNC;
    else
        return rs_failure_set(f, RS_EXIT_USAGE, "--io %s: uring or pread is wanted", text);
    return 0;
}

static bool take_switch(struct rs_tc_options *o, int id)
{
    switch (id) {
    case OPT_IN_PLACE:
        return o->in_place = true;
    case OPT_RESUME:
        return o->resume = true;
    case OPT_FORCE:
        return o->force = true;
    case OPT_EXISTING:
        return o->existing = true;
    case OPT_DIRECT:
        return o->direct = true;
    case OPT_BUFFERED:
        return o->buffered = true;
    case OPT_NO_SYNC:
        return o->no_sync = true;
    case OPT_VERIFY:
        return o->verify = true;
    case OPT_JSON:
        return o->json = true;
    case OPT_FILL:
        return o->fill_holes = true;
    case OPT_KEEP:
        return o->keep_holes = true;
    case 'q':
        return o->quiet = true;
    case 'h':
        return o->help = true;
    default:
        return false;
    }
}

static int take(struct rs_tc_options *o, int id, char *text, struct rs_failure *f)
{
    if (take_switch(o, id)) return 0;
    switch (id) {
    case OPT_SRC_FILE:
        o->src_pass.file = text;
        return 0;
    case OPT_DST_FILE:
        o->dst_pass.file = text;
        return 0;
    case OPT_SRC_FD:
        return take_fd("source-passphrase-fd", text, &o->src_pass.fd, f);
    case OPT_DST_FD:
        return take_fd("destination-passphrase-fd", text, &o->dst_pass.fd, f);
    case OPT_FROM_PROVIDER:
        o->from.provider = text;
        return 0;
    case OPT_FROM_KEY:
        o->from.key = text;
        return 0;
    case OPT_TO_PROVIDER:
        o->to.provider = text;
        return 0;
    case OPT_TO_KEY:
        o->to.key = text;
        return 0;
    case OPT_RUNTIME:
        o->runtime_dir = text;
        return 0;
    case OPT_TENANT:
        o->tenant = text;
        return 0;
    case OPT_JOURNAL:
        o->journal = text;
        return 0;
    case OPT_IO:
        return take_io(o, text, f);
    case OPT_CHUNK:
        return take_power("chunk", text, 65536, 4u << 20, &o->chunk, f);
    case OPT_DEPTH:
        return take_u32("depth", text, 1, RS_TC_SLOTS_MAX, &o->depth, f);
    case OPT_ZONE:
        return take_power("zone", text, 65536, 256u << 20, &o->zone, f);
    case '?':
        return rs_failure_set(f, RS_EXIT_USAGE, "'reseal transcode --help' has the options");
    default:
        return take_format(o, id, text, f);
    }
}

static int check_providers(const struct rs_tc_options *o, struct rs_failure *f)
{
    if (o->to.key != NULL && o->to.provider == NULL)
        return rs_failure_set(f, RS_EXIT_USAGE, "--to-key is a key of a key provider: add --to-provider");
    if (o->to.provider != NULL && o->dst.kind != RS_SIDE_LUKS)
        return rs_failure_set(f, RS_EXIT_USAGE,
                              "--to-provider makes a LUKS header: the destination is luks:FILE");
    if (o->to.provider != NULL && o->format.version == 1 && o->to.key == NULL)
        return rs_failure_set(
            f, RS_EXIT_USAGE,
            "a LUKS1 header cannot name its key: make one (reseal key make) and give it with "
            "--to-key, or use LUKS2");
    if ((o->from.provider != NULL) != (o->from.key != NULL))
        return rs_failure_set(f, RS_EXIT_USAGE, "--from-provider and --from-key go together");
    if (o->from.key != NULL &&
        (o->src.kind != RS_SIDE_LUKS || o->src_pass.file != NULL || o->src_pass.fd >= 0))
        return rs_failure_set(f, RS_EXIT_USAGE, "--from-key opens a LUKS source, instead of a pass phrase");
    return 0;
}

static int check_combination(const struct rs_tc_options *o, struct rs_failure *f)
{
    if (o->in_place && (o->force || o->existing || o->no_sync))
        return rs_failure_set(f, RS_EXIT_USAGE,
                              "--force, --existing and --no-sync do not go with --in-place");
    if (o->in_place && o->verify)
        return rs_failure_set(f, RS_EXIT_USAGE,
                              "--verify does not go with --in-place: no source is left to compare with");
    if (o->direct && o->buffered) return rs_failure_set(f, RS_EXIT_USAGE, "--direct or --buffered, not both");
    if (o->fill_holes && o->keep_holes)
        return rs_failure_set(f, RS_EXIT_USAGE, "--fill-holes or --keep-holes, not both");
    if (o->force && o->existing) return rs_failure_set(f, RS_EXIT_USAGE, "--force or --existing, not both");
    if (o->resume && o->no_sync)
        return rs_failure_set(f, RS_EXIT_USAGE, "--no-sync keeps no state to --resume from");
    if (!o->has_dst && o->src.kind != RS_SIDE_LUKS)
        return rs_failure_set(f, RS_EXIT_USAGE, "%s in place needs DST too, the same file with its new key",
                              rs_side_kind_name(o->src.kind));
    if (o->src.kind == RS_SIDE_PLAIN && o->dst.kind == RS_SIDE_PLAIN)
        return rs_failure_set(f, RS_EXIT_USAGE, "plain to plain needs no key: copy the file");
    if (o->format.version == 1 && o->format.unit > 512)
        return rs_failure_set(f, RS_EXIT_USAGE, "LUKS1 has data units of 512 bytes only: leave --unit out");
    if (o->format.version == 1 && o->format.pbkdf == 2)
        return rs_failure_set(f, RS_EXIT_USAGE, "LUKS1 has pbkdf2 only");
    return 0;
}

static int take_sides(struct rs_tc_options *o, int n, char **words, struct rs_failure *f)
{
    if (n < 1 || n > 2 || (n == 1 && !o->in_place))
        return rs_failure_set(f, RS_EXIT_USAGE,
                              "SRC and DST are wanted (or --in-place and one of them); "
                              "'reseal transcode --help' has an example");
    int code = rs_side_parse(words[0], &o->src, f);
    o->has_dst = n == 2;
    if (code == 0) code = rs_side_parse(words[n - 1], &o->dst, f);
    return code;
}

int rs_tc_parse(struct rs_tc_options *o, int argc, char **argv, struct rs_failure *f)
{
    *o = (struct rs_tc_options){.src_pass.fd = -1, .dst_pass.fd = -1, .zone = 32u << 20};
    o->format.size = sizeof(o->format);
    optind = 0;
    for (int id; (id = getopt_long(argc, argv, "qh", options, NULL)) != -1;) {
        int code = take(o, id, optarg, f);
        if (code != 0) return code;
    }
    if (o->help) return 0;
    int code = take_sides(o, argc - optind, argv + optind, f);
    if (code == 0) code = check_combination(o, f);
    return code != 0 ? code : check_providers(o, f);
}
