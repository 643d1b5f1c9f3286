/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "offload/base/bytes.h"
#include "offload/cli/doctor.h"

/* What the service locks: per worker a scratch for the largest job, and the keys. */
#define LOCK_NEED (16u << 20)

/* ---- processor ----------------------------------------------------------- */

#if defined(__x86_64__)

struct features {
    bool aesni, vaes, avx2, avx512; /* the processor has it */
    bool os_avx, os_avx512;         /* and the system saves its registers */
};

static uint64_t xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static struct features features_now(void)
{
    struct features has = {0};
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return has;
    has.aesni = (c & bit_AES) != 0 && (c & bit_PCLMUL) != 0;
    uint64_t saved = (c & bit_OSXSAVE) != 0 ? xcr0() : 0;
    has.os_avx = (saved & 0x6) == 0x6;
    has.os_avx512 = (saved & 0xe6) == 0xe6;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return has;
    has.avx2 = (b & bit_AVX2) != 0;
    has.vaes = (c & bit_VAES) != 0 && (c & bit_VPCLMULQDQ) != 0;
    has.avx512 = (b & bit_AVX512F) != 0 && (b & bit_AVX512BW) != 0 && (b & bit_AVX512VL) != 0;
    return has;
}

static void check_processor(struct rs_findings *f)
{
    struct features has = features_now();
    if (!has.aesni) {
        rs_remedy(rs_find(f, "processor", RS_FINDING_LIMITS,
                          "no AES instructions: only the portable engine, many times slower"),
                  "give the virtual machine the host's processor model, e.g. qemu -cpu host");
        return;
    }
    if (has.vaes && has.avx512 && !has.os_avx512)
        rs_remedy(
            rs_find(f, "processor", RS_FINDING_LIMITS,
                    "VAES with AVX-512, but XCR0 does not save 512-bit registers: 256-bit kernels only"),
            "remove clearcpuid=, noxsave and similar from the kernel's command line; in a virtual machine "
            "expose avx512");
    else if (has.avx2 && !has.os_avx)
        rs_remedy(rs_find(f, "processor", RS_FINDING_LIMITS,
                          "AVX2, but XCR0 does not save 256-bit registers: AES-NI kernels only"),
                  "remove noxsave from the kernel's command line");
    else if (has.vaes && has.avx512)
        rs_find(f, "processor", RS_FINDING_OK, "VAES with AVX-512, registers saved by the system");
    else if (has.vaes && has.avx2)
        rs_find(f, "processor", RS_FINDING_OK, "VAES with AVX2 (this processor has no AVX-512)");
    else
        rs_remedy(rs_find(f, "processor", RS_FINDING_LIMITS,
                          "AES-NI without VAES: one block at a time instead of four"),
                  "in a virtual machine on a newer host: expose vaes and vpclmulqdq");
}

#else

static void check_processor(struct rs_findings *f)
{
    rs_find(f, "processor", RS_FINDING_LIMITS, "not x86-64: only the portable engine");
}

#endif

static void check_pinning(struct rs_findings *f)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) {
        rs_find(f, "pinning", RS_FINDING_FAILS, "cannot read the allowed cores: errno %d", errno);
        return;
    }
    int n = CPU_COUNT(&allowed);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    for (size_t i = 0; i < CPU_SETSIZE; i++) {
        if (!CPU_ISSET(i, &allowed)) continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(i, &one);
        if (sched_setaffinity(0, sizeof(one), &one) != 0) {
            rs_remedy(
                rs_find(f, "pinning", RS_FINDING_FAILS, "this process may not be pinned to core %zu", i),
                "give the container a cpuset with that core, e.g. docker run --cpuset-cpus");
            return;
        }
    }
    if (sched_setaffinity(0, sizeof(allowed), &allowed) != 0) return;
    if (n == 1)
        rs_remedy(rs_find(f, "pinning", RS_FINDING_LIMITS,
                          "one core allowed of %ld online: the worker shares it with its clients", online),
                  "allow a second core: taskset -c 0,1 reseald ...");
    else
        rs_find(f, "pinning", RS_FINDING_OK, "%d cores allowed of %ld online, each can be pinned to", n,
                online);
}

static void check_frequency(struct rs_findings *f)
{
    char governor[32] = "";
    FILE *file = fopen("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "re");
    if (file == NULL) return; /* virtual machines have none */
    if (fscanf(file, "%31s", governor) == 1 && strcmp(governor, "powersave") == 0)
        rs_remedy(rs_find(f, "frequency", RS_FINDING_LIMITS, "governor %s: cores speed up late", governor),
                  "cpupower frequency-set -g performance");
    fclose(file);
}

/* ---- memory -------------------------------------------------------------- */

static void check_memory_lock(struct rs_findings *f)
{
    struct rlimit limit = {0, 0};
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) limit.rlim_cur = 0;
    /* Tried rather than read: CAP_IPC_LOCK passes the limit. */
    void *p = mmap(NULL, LOCK_NEED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool locks = p != MAP_FAILED && mlock(p, LOCK_NEED) == 0;
    if (p != MAP_FAILED) munmap(p, LOCK_NEED);
    if (locks)
        rs_find(f, "memory lock", RS_FINDING_OK, "%u MiB can be locked", LOCK_NEED >> 20);
    else
        rs_remedy(
            rs_find(f, "memory lock", RS_FINDING_LIMITS,
                    "%u MiB cannot be locked (limit %llu KiB): keys or scratch memory could be swapped out",
                    LOCK_NEED >> 20, (unsigned long long)limit.rlim_cur >> 10),
            "as root: prlimit --pid $$ --memlock=268435456 (this shell), or LimitMEMLOCK=256M in the unit");
}

static void check_secret_memory(struct rs_findings *f)
{
    long fd = syscall(447 /* memfd_secret */, O_CLOEXEC);
    if (fd >= 0) {
        close((int)fd);
        rs_find(f, "secret memory", RS_FINDING_OK,
                "memfd_secret: keys are out of reach even for root's debugger");
        return;
    }
    rs_remedy(
        rs_find(f, "secret memory", RS_FINDING_LIMITS,
                "no memfd_secret (errno %d): keys are in locked memory that root can read", errno),
        "add secretmem.enable=1 to the kernel's command line, e.g. GRUB_CMDLINE_LINUX, then update-grub");
}

static long read_number(const char *path)
{
    long n = -1;
    FILE *file = fopen(path, "re");
    if (file == NULL) return -1;
    if (fscanf(file, "%ld", &n) != 1) n = -1;
    fclose(file);
    return n;
}

static void check_hugepages(struct rs_findings *f)
{
    long spare = read_number("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    if (spare >= 32)
        rs_find(f, "hugepages", RS_FINDING_OK, "%ld of 2 MiB are free for queues", spare);
    else
        rs_remedy(rs_find(f, "hugepages", RS_FINDING_LIMITS,
                          "%ld of 2 MiB are free: queues use small pages, slower on large arenas",
                          spare < 0 ? 0 : spare),
                  "as root: sysctl vm.nr_hugepages=128");
}

/* ---- kernel -------------------------------------------------------------- */

static void check_io_uring(struct rs_findings *f)
{
    struct io_uring ring;
    int r = io_uring_queue_init(4, &ring, 0);
    if (r == 0) {
        io_uring_queue_exit(&ring);
        rs_find(f, "io_uring", RS_FINDING_OK, "allowed");
    } else if (r == -ENOMEM) {
        rs_remedy(rs_find(f, "io_uring", RS_FINDING_LIMITS,
                          "no locked memory for it: transcode reads and writes one by one"),
                  "as root: prlimit --pid $$ --memlock=268435456");
    } else {
        rs_remedy(
            rs_find(f, "io_uring", RS_FINDING_LIMITS, "refused (%s): transcode reads and writes one by one",
                    strerror(-r)),
            "as root: sysctl kernel.io_uring_disabled=0; in a container, allow io_uring_setup in its seccomp "
            "profile");
    }
}

static void check_sandbox(struct rs_findings *f)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi >= 1)
        rs_find(f, "landlock", RS_FINDING_OK, "ABI %ld", abi);
    else
        rs_remedy(rs_find(f, "landlock", RS_FINDING_LIMITS,
                          "not in force: the service's processes can reach files that they need not"),
                  "add lsm=landlock,... to the kernel's command line");
    uint32_t action = SECCOMP_RET_KILL_PROCESS;
    if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0)
        rs_find(f, "seccomp", RS_FINDING_OK, "available");
    else
        rs_remedy(rs_find(f, "seccomp", RS_FINDING_LIMITS, "not available: no system call filter"),
                  "run a kernel with CONFIG_SECCOMP_FILTER=y");
}

static void check_memfd(struct rs_findings *f)
{
    int fd = memfd_create("doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd >= 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        rs_find(f, "memfd", RS_FINDING_OK, "can be made and sealed");
    else
        rs_remedy(rs_find(f, "memfd", RS_FINDING_FAILS, "cannot be sealed (%s): no queue can be opened",
                          strerror(errno)),
                  "allow memfd_create and fcntl seals in the container's seccomp profile");
    if (fd >= 0) close(fd);
}

void rs_check_machine(struct rs_findings *f)
{
    check_processor(f);
    check_pinning(f);
    check_frequency(f);
    check_memory_lock(f);
    check_secret_memory(f);
    check_hugepages(f);
    check_memfd(f);
    check_io_uring(f);
    check_sandbox(f);
}
