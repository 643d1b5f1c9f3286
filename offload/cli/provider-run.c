/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/provider.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT_MAX (32u << 10) /* bytes of certificates in one file: a request has 64 KiB */

int rs_provider_call(struct rs_provider_run *p, const char *method, json_t *args, const int *fds,
                     unsigned nfds, json_t **result, int *fd)
{
    char why[RS_KEYSERVICE_WHY];
    json_t *reply = NULL;
    int r = 0;
    if (p->service == NULL) {
        const struct reseal_options options = {
            .size = sizeof(options), .runtime_dir = p->o.runtime_dir, .tenant = p->o.tenant};
        r = reseal_open(&p->service, &options);
    }
    if (r != 0) {
        json_decref(args);
        return r == RESEAL_ENOSERVICE
                   ? rs_failure_set(&p->f, RS_EXIT_SERVICE,
                                    "no service answers: start reseald, or see 'reseal doctor'")
                   : rs_failure_code(&p->f, r, "the service");
    }
    r = rs_keyservice_call(p->service, method, args, fds, nfds, &reply, fd, why, sizeof(why));
    if (r == 0 && result != NULL) {
        *result = reply;
        return 0;
    }
    if (r != 0) {
        if (p->result == NULL) p->result = json_incref(reply); /* event, privilege */
        (void)rs_failure_set(&p->f, rs_exit_of(r), "%s", why);
    }
    json_decref(reply);
    return r == 0 ? 0 : p->f.exit;
}

int rs_provider_text(const char *path, char **out, struct rs_failure *f)
{
    struct stat st;
    RS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) return rs_failure_errno(f, errno, "open", path);
    if (!S_ISREG(st.st_mode) || st.st_size == 0 || st.st_size > TEXT_MAX)
        return rs_failure_set(f, RS_EXIT_FORMAT, "%s is no file of certificates in PEM form", path);
    char *text = malloc((size_t)st.st_size + 1);
    if (text == NULL) return rs_failure_errno(f, ENOMEM, "read", path);
    int r = rs_read_full(fd, text, (size_t)st.st_size);
    text[st.st_size] = '\0';
    if (r == 0 && strlen(text) == (size_t)st.st_size && strstr(text, "-----BEGIN CERTIFICATE-----") != NULL) {
        *out = text;
        return 0;
    }
    free(text);
    return r != 0 ? rs_failure_errno(f, r, "read", path)
                  : rs_failure_set(f, RS_EXIT_FORMAT, "%s holds no certificate in PEM form", path);
}

const char *rs_provider_member(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text != NULL ? text : "";
}

int rs_provider_tell(struct rs_provider_run *p, const char *command)
{
    if (p->o.json) {
        json_t *out = p->result != NULL ? json_incref(p->result) : json_object();
        if (p->f.exit != RS_EXIT_OK) (void)json_object_set_new(out, "error", json_string(p->f.text));
        (void)json_dumpf(out, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(out);
    } else if (p->f.exit != RS_EXIT_OK) {
        fprintf(stderr, "reseal %s: %s\n", command, p->f.text);
    }
    return p->f.exit;
}
