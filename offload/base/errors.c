/* SPDX-License-Identifier: Apache-2.0 */
#include "reseal/reseal.h"

/* One line each: what is wrong and what to do. */
static const struct {
    int code;
    const char *text;
} texts[] = {
    {0, "success"},
    {RESEAL_EINVAL, "invalid argument: check the call's documented ranges"},
    {RESEAL_ENOMEM, "out of memory, or the locked-memory limit is reached: raise RLIMIT_MEMLOCK"},
    {RESEAL_EAGAIN, "the ring is full: poll for completions, then submit again"},
    {RESEAL_ETIMEDOUT, "timed out: nothing completed in the time given"},
    {RESEAL_ENOSERVICE, "the service is not running or cannot be reached: start reseald, or check --runtime-dir"},
    {RESEAL_EPROTO, "the other side broke the protocol: the connection was closed"},
    {RESEAL_EVERSION, "the service speaks another protocol version: upgrade the older side"},
    {RESEAL_EPERM, "permission denied: the policy does not grant this"},
    {RESEAL_EPAIR, "the policy does not list this (source key -> destination key) pair: add it to the policy file"},
    {RESEAL_ENOKEY, "no such key, or it belongs to another client"},
    {RESEAL_EKEYGONE, "the key is gone from the service: supply the pass phrase or key again"},
    {RESEAL_EKEYBAD, "the key does not fit: wrong length, algorithm, use, data unit, or equal XTS halves"},
    {RESEAL_EKEYUSED, "the key reached its usage limit: open a new session"},
    {RESEAL_EPASS, "wrong pass phrase: no key slot opens with it"},
    {RESEAL_EFORMAT, "not a LUKS header, or it is damaged beyond both copies"},
    {RESEAL_ECIPHER, "this cipher is not supported: only aes-xts-plain64 with 256- or 512-bit keys is"},
    {RESEAL_EAUTH, "authentication failed: the data or its tag was altered; nothing was written"},
    {RESEAL_ELOST, "an in-place job was interrupted: its buffer is undefined, restore it from the source"},
    {RESEAL_ECANCELED, "cancelled before it started; nothing was written"},
    {RESEAL_EREVOKED, "the key was revoked while the job waited; nothing was written"},
    {RESEAL_ERANGE, "an offset or length lies outside its region"},
    {RESEAL_EOVERLAP, "source and destination overlap in part: use identical or disjoint buffers"},
    {RESEAL_EUNIT, "the length is not a whole number of data units, or the data unit is out of range"},
    {RESEAL_ESPACE, "the output does not fit into the destination capacity"},
    {RESEAL_EFAULT, "the client's memory could not be touched: its file was truncated or punched"},
    {RESEAL_ELIMIT, "a limit of this client or of its tenant is reached: close something first, or ask for a higher limit"},
    {RESEAL_ESELFTEST, "a kernel failed its known-answer test and is disabled"},
    {RESEAL_EIO, "input/output error"},
    {RESEAL_EDATA, "the data to decompress is malformed or of another length than announced"},
    {RESEAL_EFORK, "the handle was opened before a fork: open a new one in the child"},
    {RESEAL_ENOSUPPORT, "not supported by this service"},
    {RESEAL_EBUSY, "in use: wait for the other operation, or close the outstanding jobs"},
    {RESEAL_EAUDIT, "the service cannot write its audit, so it uses no key: make room in its state folder"},
    {RESEAL_ESUSPENDED, "the tenant is suspended: its administrator lets it in again by 'reseal tenant resume'"},
};

const char *reseal_strerror(int code)
{
    if (code > 0) code = -code;
    for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (texts[i].code == code) return texts[i].text;
    return "unknown error code";
}
