/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_NEEDLES_H
#define RS_TESTS_NEEDLES_H

/*
 * Secrets looked for in the memory of other processes, as root's debugger would,
 * and in core dumps. What is found is printed, with where. Any failure of the
 * machinery ends the program with 2 and a line on stderr. One thread.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

void needles_clear(void);

/* Any 16 bytes. `what` is printed when they are found and must stay. */
void needles_add(const uint8_t bytes[16], const char *what);

/* A raw AES key of 128, 192 or 256 bits, its round keys in both directions, and its hash key in both orders
 * of bytes. */
void needles_add_key(const uint8_t *key, unsigned bits, const char *what);

unsigned needles_count(void);
unsigned needles_found(void);

/* The known answers of FIPS 197, as a search for wrong round keys would find nothing for ever. Clears. */
void needles_check_expansion(void);

/* That the scan can find: `key` in plain memory of this process, of which 16 bytes are a needle, is seen. */
void needles_check_scanner(const uint8_t key[32]);

/* Every mapping that can be read; the bytes that were. */
size_t needles_scan_process(pid_t pid, const char *name);

/* The same of a process, its children, theirs and so on; *n counts them (NULL: not wanted). One that ends meanwhile
 * is passed over. */
size_t needles_scan_tree(pid_t pid, unsigned *n);

/* The memory in a core dump by gcore, made in `folder`; says so when there is none to be had. */
void needles_scan_core(pid_t pid, const char *folder, const char *name);

#endif
