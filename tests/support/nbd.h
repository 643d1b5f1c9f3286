/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_NBD_H
#define RS_TESTS_NBD_H

/*
 * A disk server in a thread of the test, and NBD clients by hand: what they send and get, byte by byte. Any
 * failure ends the test program. Calls of a client may come from any thread; the server is one.
 */

#include "offload/vm/nbd-protocol.h"
#include "offload/vm/serve.h"
#include "tests/support/client.h"

#include <pthread.h>

#define NBD_DISK_SIZE (40ull << 20) /* bytes of the first disk */

/* Two disks: "disk", and "fixed" that is read-only. */
struct nbd_server {
    struct client client;
    struct rs_vmserve *serve;
    struct rs_vmserve_disk disks[2];
    reseal_key keys[2];
    struct reseal_luks luks[2];
    int listener, signals[2];
    char path[108];
    pthread_t thread;
    int result;
    _Atomic unsigned lines;     /* that it said */
    _Atomic uint64_t data_size; /* of the first disk, as its header says; 0: all to the end of the file */
};
extern struct nbd_server nbd_server;

/* For cmocka_run_group_tests(). */
int nbd_start(void **state);
int nbd_end(void **state);
/* As if the program got a signal. */
void nbd_signal(int number);

/* ---- bytes ---- */

void nbd_put(int fd, const void *data, size_t len);
/* Waits for exactly that much; false when the server ended the connection before. */
bool nbd_get(int fd, void *data, size_t len);
void nbd_assert_dropped(int fd);
/* The others go on. */
void nbd_assert_serves(void);

/* ---- negotiation ---- */

/* A connection after the greeting; after the client's flags. */
int nbd_dial(void);
int nbd_dial_flags(uint32_t flags);
void nbd_option(int fd, uint32_t number, const void *data, uint32_t len);

#define NBD_ACK         1u
#define NBD_ERR_UNSUP   0x80000001u
#define NBD_ERR_POLICY  0x80000002u
#define NBD_ERR_INVALID 0x80000003u
#define NBD_ERR_UNKNOWN 0x80000006u

/* A reply to an option: its type; what it carries, up to `room` bytes, and how much that is. */
uint32_t nbd_answer(int fd, uint32_t number, uint8_t *data, size_t room, uint32_t *len);
uint32_t nbd_only_answer(int fd, uint32_t number);
/* The data of GO for an export; its length. */
uint32_t nbd_go_data(uint8_t out[300], const char *name);
/* Into the transmission; the export's size. */
uint64_t nbd_go(int fd, const char *name);
/* All of that. */
int nbd_client(bool structured, const char *name);

/* ---- requests, with simple replies ---- */

void nbd_request(int fd, unsigned type, unsigned flags, uint64_t cookie, uint64_t off, uint32_t len);
/* The error in it. */
uint32_t nbd_reply(int fd, uint64_t cookie);
uint32_t nbd_simple(int fd, unsigned type, unsigned flags, uint64_t off, uint32_t len);
uint32_t nbd_write(int fd, uint64_t off, const void *data, uint32_t len, unsigned flags);
void nbd_read(int fd, uint64_t off, void *data, uint32_t len);

#endif
