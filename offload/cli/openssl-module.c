/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/openssl.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "offload/cli/exit.h"

struct machine {
    uint8_t bits; /* ELFCLASS32, ELFCLASS64; 0: no ELF file */
    uint16_t type, machine;
};

/* 0 or -errno. Class, type and machine lie at the same place in both classes. */
static int machine_of(const char *path, struct machine *m)
{
    *m = (struct machine){.bits = 0};
    RS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) return -errno;
    if (!S_ISREG(st.st_mode)) return -EISDIR;
    Elf32_Ehdr h;
    int r = rs_pread_full(fd, &h, sizeof(h), 0);
    if (r == -ENODATA || (r == 0 && memcmp(h.e_ident, ELFMAG, SELFMAG) != 0)) return 0;
    if (r != 0) return r;
    *m = (struct machine){.bits = h.e_ident[EI_CLASS], .type = h.e_type, .machine = h.e_machine};
    return 0;
}

static const char *machine_name(const struct machine *m)
{
    switch (m->machine) {
    case EM_X86_64:
        return m->bits == ELFCLASS32 ? "x32" : "x86-64";
    case EM_386:
        return "i386";
    case EM_AARCH64:
        return "arm64";
    default:
        return "another processor";
    }
}

static int unreadable(struct rs_openssl_check *c, int error)
{
    const char *path = c->m.path;
    if (error == -ENOENT || error == -ENOTDIR)
        return rs_openssl_fails(c, RS_EXIT_IO, "module",
                                "cmake --install build/release as root, or name the file with --module",
                                "there is no %.250s", path);
    if (error == -EACCES || error == -EPERM)
        return rs_openssl_fails(c, RS_EXIT_REFUSED, "module",
                                "chmod a+r the file and a+x the folders on the way",
                                "%.230s may not be read by this user", path);
    return rs_openssl_fails(c, RS_EXIT_IO, "module", "name the module's file with --module",
                            "%.200s cannot be read: %s", path, strerror(-error));
}

/* The file is one that this OpenSSL's processor can run. */
static int check_machine(struct rs_openssl_check *c, const struct machine *m)
{
    static const char remedy[] = "install the module again, from a build for this machine";
    if (m->bits == 0)
        return rs_openssl_fails(c, RS_EXIT_FORMAT, "module", remedy, "%.200s is not a shared library",
                                c->m.path);
    struct machine o;
    const char *with = c->o.library[0] != '\0' ? c->o.library : c->o.program;
    /* A script as the program says nothing; then loading tells. */
    if (machine_of(with, &o) != 0 || o.bits == 0) return 0;
    if (m->bits != o.bits || m->machine != o.machine)
        return rs_openssl_fails(c, RS_EXIT_FORMAT, "module", remedy,
                                "%.150s is for %s, this OpenSSL is for %s", c->m.path, machine_name(m),
                                machine_name(&o));
    return 0;
}

/* OpenSSL makes the file's name of the provider's: folder/NAME.so. */
static int split_path(struct rs_openssl_check *c)
{
    const char *file = strrchr(c->m.path, '/');
    file = file == NULL ? c->m.path : file + 1;
    size_t len = strlen(file);
    if (len < 4 || len - 3 >= sizeof(c->m.name) || strcmp(file + len - 3, ".so") != 0)
        return rs_openssl_fails(c, RS_EXIT_FORMAT, "module", "rename it to reseal.so",
                                "%.200s: the name of a module must end in .so", c->m.path);
    snprintf(c->m.name, sizeof(c->m.name), "%.*s", (int)(len - 3), file);
    rs_openssl_folder(c->m.path, c->o.provider, sizeof(c->o.provider));
    return 0;
}

int rs_openssl_find_module(struct rs_openssl_check *c)
{
    struct machine m;
    int r = rs_openssl_module_path(c->module, c->m.path);
    if (r == 0) r = machine_of(c->m.path, &m);
    if (r != 0) return unreadable(c, r);
    if (check_machine(c, &m) != 0 || split_path(c) != 0) return -1;
    struct stat st;
    if (stat(c->m.path, &st) == 0 && (st.st_mode & S_IROTH) == 0)
        rs_remedy(rs_find(&c->f, "module", RS_FINDING_LIMITS,
                          "%.230s may not be read by all: services of other users go without it", c->m.path),
                  "chmod a+r %.250s", c->m.path);
    return 0;
}
