/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_FUZZ_FRAME_H
#define RS_TESTS_FUZZ_FRAME_H

/* Frames of wire/frame.h for fuzz targets of what is in them. */

#include "offload/base/bytes.h"
#include "providers/key/wire/frame.h"

#include <stdlib.h>

/*
 * The first byte chooses a beginning of the text (past the last: the input is the whole frame, head and all),
 * the second an end of it, since the parser of JSON tells the fuzzer nothing of how near it came, the third
 * how many bytes after that are the block; the rest is between beginning and end. False: it is no frame that
 * a receiver takes.
 */
static inline bool frame_of(const uint8_t *data, size_t len, const char *const *begins, unsigned nbegins,
                            struct rs_wire_message *out)
{
    static const char *const ends[] = {"", "}", "]}", "\"}", "\"]}", "\"]]}", ",\"key\":\"1\"}"};
    if (len < 3) return false;
    unsigned which = data[0] % (nbegins + 1);
    if (which == nbegins) return rs_wire_unpack(data + 1, len - 1, out) == 0;
    const char *begin = begins[which], *end = ends[data[1] % RS_ARRAY_LEN(ends)];
    size_t rest = len - 3, block = RS_MIN((size_t)data[2] * 16, rest), nbegin = strlen(begin),
           nend = strlen(end);
    RS_FREE uint8_t *frame = malloc(RS_WIRE_HEAD + nbegin + rest + nend);
    if (frame == NULL) abort();
    rs_store_be32(frame, (uint32_t)(4 + nbegin + rest + nend));
    rs_store_be32(frame + 4, (uint32_t)(nbegin + rest - block + nend));
    uint8_t *at = frame + RS_WIRE_HEAD;
    memcpy(at, begin, nbegin);
    memcpy(at + nbegin, data + 3, rest - block);
    memcpy(at + nbegin + rest - block, end, nend);
    memcpy(at + nbegin + rest - block + nend, data + 3 + rest - block, block);
    return rs_wire_unpack(frame, RS_WIRE_HEAD + nbegin + rest + nend, out) == 0;
}

#endif
