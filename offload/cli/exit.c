/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/exit.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "offload/base/text.h"
#include "reseal/reseal.h"

int rs_failure_set(struct rs_failure *f, int exit_code, const char *format, ...)
{
    if (f->exit != RS_EXIT_OK) return f->exit;
    va_list args;
    va_start(args, format);
    vsnprintf(f->text, sizeof(f->text), format, args);
    va_end(args);
    rs_line_clean(f->text); /* names of files are in it */
    f->exit = exit_code;
    return exit_code;
}

int rs_exit_of(int reseal_error)
{
    switch (reseal_error) {
    case 0:
        return RS_EXIT_OK;
    case RESEAL_EPERM:
    case RESEAL_EPAIR:
    case RESEAL_ELIMIT:
    case RESEAL_ESUSPENDED:
        return RS_EXIT_REFUSED;
    case RESEAL_EPASS:
    case RESEAL_EKEYBAD:
    case RESEAL_ENOKEY:
        return RS_EXIT_KEY;
    case RESEAL_EFORMAT:
    case RESEAL_ECIPHER:
    case RESEAL_EUNIT:
        return RS_EXIT_FORMAT;
    case RESEAL_EIO:
    case RESEAL_EAUDIT:
        return RS_EXIT_IO;
    case RESEAL_ENOSERVICE:
    case RESEAL_ETIMEDOUT: /* it, or a key server that hangs */
    case RESEAL_EPROTO:
    case RESEAL_EVERSION:
    case RESEAL_EKEYGONE:
    case RESEAL_EREVOKED:
        return RS_EXIT_SERVICE;
    case RESEAL_ECANCELED: /* by a signal: rs_keyservice_stop_when() */
        return RS_EXIT_INTERRUPTED;
    default:
        return RS_EXIT_FAILED;
    }
}

int rs_failure_code(struct rs_failure *f, int reseal_error, const char *what)
{
    return rs_failure_set(f, rs_exit_of(reseal_error), "%s: %s", what, reseal_strerror(reseal_error));
}

static int exit_of_errno(int error)
{
    switch (error) {
    case EACCES:
    case EPERM:
    case EROFS:
        return RS_EXIT_REFUSED;
    case ENOMEM:
        return RS_EXIT_FAILED;
    case ENODATA:
        return RS_EXIT_FORMAT;
    default:
        return RS_EXIT_IO;
    }
}

static const char *advice(int error)
{
    switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return ": make room, then run the same command again";
    case EACCES:
    case EPERM:
        return ": check the owner and the mode of the file";
    case EBUSY:
        return ": it is mounted or in use; release it first";
    default:
        return "";
    }
}

int rs_failure_errno(struct rs_failure *f, int error, const char *verb, const char *path)
{
    int e = error < 0 ? -error : error;
    if (e == ENODATA) return rs_failure_set(f, RS_EXIT_FORMAT, "%s ends early: it is truncated", path);
    return rs_failure_set(f, exit_of_errno(e), "cannot %s %s: %s%s", verb, path, strerror(e), advice(e));
}
