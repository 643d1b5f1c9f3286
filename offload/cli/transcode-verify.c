/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>

#include "offload/cli/transcode.h"

/*
 * XTS is deterministic, so a proof needs no plaintext here: the destination
 * goes back under the source's key and must give the source's very bytes. It
 * decrypts with the key that encrypted, so a wrong tweak or unit shows. Where
 * the source is plain, or the policy does not list the pair that way round,
 * the source goes forward a second time and must give the destination.
 */
int rs_tc_verify(struct rs_tc *t)
{
    reseal_session *back = NULL;
    int code = RESEAL_EPAIR;
    if (t->src.cipher != RESEAL_PLAIN) code = rs_tc_session(t, &t->dst, &t->src, &back);
    if (code != 0 && code != RESEAL_EPAIR && code != RESEAL_EPERM)
        return rs_failure_code(&t->f, code, "cannot open a session to verify");
    bool reverse = code == 0;
    /* What is compared shall come from the medium where the kernel lets go of what it keeps. */
    (void)posix_fadvise(t->dst_file.fd, 0, 0, POSIX_FADV_DONTNEED);
    struct rs_tc_pipe pipe = {.label = "verify",
                              .from = reverse ? &t->dst : &t->src,
                              .to = reverse ? &t->src : &t->dst,
                              .session = reverse ? back : t->session,
                              .compare = true};
    struct rs_tc_pipe_result result;
    code = rs_tc_pipe(t, &pipe, &result);
    if (back != NULL) reseal_session_close(back);
    t->verified = code == 0;
    return code;
}
