/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_ENVELOPES_H
#define RS_TESTS_ENVELOPES_H

/* Envelopes in memory files, for tests of their format. What cannot fail in a working test ends it. */

#include "providers/key/envelope.h"

/* A memory file with `len` bytes of a pattern that `seed` begins. */
int pattern_file(uint64_t len, uint32_t seed);

/* The same as an envelope. */
int sealed_file(uint64_t len, uint32_t seed, const uint8_t key[RS_ENVELOPE_KEY], const char *aad);

/* Opens one into a memory file, *text, from its file's key. The status of loading or opening. */
int open_file(int envelope, const uint8_t key[RS_ENVELOPE_KEY], const char *aad, int *text);

uint64_t length_of(int fd);
bool same_bytes(int a, int b);

#endif
