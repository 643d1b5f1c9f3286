/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/openssl.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "offload/cli/exit.h"
#include "reseal/reseal.h"

/* The template; the module's path stands between the two '@'. */
static const char fragment[] =
#include "openssl-fragment.inc"
    ;
static const char place[] = "@RESEAL_MODULE@";

void rs_openssl_folder(const char *path, char *folder, size_t len)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        snprintf(folder, len, ".");
    else
        snprintf(folder, len, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

/* Beside this program: of an installation, or of a build tree. */
static int installed_module(char *path)
{
    static const char *const places[] = {RESEAL_TO_MODULES, "../lib/ossl-modules"};
    char self[PATH_MAX], folder[PATH_MAX], tried[2 * PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n <= 0) return -ENOENT;
    self[n] = '\0';
    rs_openssl_folder(self, folder, sizeof(folder));
    for (size_t i = 0; i < RS_ARRAY_LEN(places); i++) {
        snprintf(tried, sizeof(tried), "%s/%s/reseal.so", folder, places[i]);
        if (realpath(tried, path) != NULL) return 0;
    }
    /* For people: without the way up. */
    char up[PATH_MAX];
    const char *to = places[0];
    for (; strncmp(to, "../", 3) == 0; to += 3) {
        rs_openssl_folder(folder, up, sizeof(up));
        memcpy(folder, up, sizeof(folder));
    }
    snprintf(path, PATH_MAX, "%.*s/%s/reseal.so", PATH_MAX - 100, folder, to);
    return -ENOENT;
}

int rs_openssl_module_path(const char *given, char *path)
{
    if (given == NULL) return installed_module(path);
    if (realpath(given, path) != NULL) return 0;
    int error = -errno;
    snprintf(path, PATH_MAX, "%s", given);
    return error;
}

/* A backslash makes any character an ordinary one, but a line break, which ends a value whatever stands
 * before it. */
int rs_openssl_value(const char *text, char *value, size_t len)
{
    size_t n = 0;
    for (; *text != '\0'; text++) {
        if (n + 3 > len || *text == '\n' || *text == '\r') return RESEAL_EINVAL;
        if (!isalnum((unsigned char)*text) && strchr("/._+@,~:=-", *text) == NULL) value[n++] = '\\';
        value[n++] = *text;
    }
    if (n >= len) return RESEAL_EINVAL;
    value[n] = '\0';
    return 0;
}

int rs_openssl_config(const char *module)
{
    char path[PATH_MAX];
    struct rs_failure failure = {.exit = RS_EXIT_OK};
    int r = rs_openssl_module_path(module, path);
    if (r != 0) {
        rs_failure_errno(&failure, r, "find the module", path);
        return rs_cli_fail(failure.exit, "openssl", "%s", failure.text);
    }
    char value[2 * PATH_MAX];
    if (rs_openssl_value(path, value, sizeof(value)) != 0)
        return rs_cli_fail(RS_EXIT_FORMAT, "openssl", "the module's path has a line break: move it");
    const char *at = strstr(fragment, place);
    if (at == NULL)
        return rs_cli_fail(RS_EXIT_FAILED, "openssl", "this build's template has no place for it");
    printf("%.*s%s", (int)(at - fragment), fragment, value);
    return fputs(at + sizeof(place) - 1, stdout) < 0 ? RS_EXIT_FAILED : RS_EXIT_OK;
}
