/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/swtpm.h"

#include "offload/base/bytes.h"
#include "tests/support/cmocka.h"

#include <openssl/sha.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* The control channel takes connections, and answers once the TPM is there: the other one takes only one at a
 * time, and ends with it. */
static bool answers(const struct swtpm *t)
{
    static const uint8_t get_capability[] = {0, 0, 0, 1};
    uint8_t answer[8]; /* a result, 0, before what was asked for */
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s/%s.sock.ctrl", t->folder, t->name);
    bool ok =
        connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0 &&
        send(fd, get_capability, sizeof(get_capability), MSG_NOSIGNAL) == (ssize_t)sizeof(get_capability) &&
        recv(fd, answer, sizeof(answer), 0) >= 4 && rs_load_be32(answer) == 0;
    close(fd);
    return ok;
}

void swtpm_start(struct swtpm *t, const char *folder, const char *name, const char *ca)
{
    char script[4096];
    t->folder = folder;
    t->name = name;
    (void)snprintf(script, sizeof(script), "%s/tests/support/swtpm.sh", getenv("RESEAL_SOURCE"));
    (void)snprintf(t->where, sizeof(t->where), "swtpm:path=%s/%s.sock", folder, name);
    t->pid = fork();
    if (t->pid == 0) {
        setpgid(0, 0);
        execl("/bin/bash", "bash", script, folder, name, ca, NULL);
        _exit(127);
    }
    while (!answers(t)) {
        int status;
        if (waitpid(t->pid, &status, WNOHANG) != 0)
            fail_msg("swtpm ended with %#x before it answered; its words are in %s/%s.log", (unsigned)status,
                     folder, name);
        poll(NULL, 0, 20);
    }
}

void swtpm_stop(struct swtpm *t)
{
    if (t->pid <= 0) return;
    kill(-t->pid, SIGTERM);
    waitpid(t->pid, NULL, 0);
    t->pid = 0;
}

void swtpm_extend(const struct swtpm *t, unsigned pcr, const char *text)
{
    unsigned char hash[SHA256_DIGEST_LENGTH];
    char argument[96];
    int status;
    SHA256((const unsigned char *)text, strlen(text), hash);
    int n = snprintf(argument, sizeof(argument), "%u:sha256=", pcr);
    for (unsigned i = 0; i < sizeof(hash); i++)
        n += snprintf(argument + n, sizeof(argument) - (size_t)n, "%02x", hash[i]);
    pid_t pid = fork();
    if (pid == 0) {
        execlp("tpm2_pcrextend", "tpm2_pcrextend", "-T", t->where, argument, NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
