/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/replay-server.h"

#include "offload/base/bytes.h"
#include "tests/support/cmocka.h"
#include "tests/support/kmip-server.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEADER 8u

static bool read_all(SSL *ssl, uint8_t *p, size_t len)
{
    while (len > 0) {
        size_t got = 0;
        if (SSL_read_ex(ssl, p, len, &got) != 1) return false;
        p += got;
        len -= got;
    }
    return true;
}

static bool read_request(SSL *ssl)
{
    uint8_t request[16384];
    if (!read_all(ssl, request, HEADER)) return false;
    uint32_t len = rs_load_be32(request + 4);
    return len <= sizeof(request) && read_all(ssl, request, len);
}

/* False: it ends here. */
static bool answer(struct replay_server *s, SSL *ssl)
{
    pthread_mutex_lock(&s->lock);
    uint8_t *copy = malloc(RS_MAX(s->len, (size_t)1));
    size_t len = s->len;
    enum replay_end end = s->end;
    memcpy(copy, s->answer, len);
    pthread_mutex_unlock(&s->lock);
    size_t step = end == REPLAY_DRIPS ? 1 : len, sent = 0;
    bool ok = true;
    for (size_t at = 0; at < len && ok; at += step) ok = SSL_write_ex(ssl, copy + at, step, &sent) == 1;
    free(copy);
    if (end == REPLAY_CLOSES) (void)SSL_shutdown(ssl);
    return ok && end != REPLAY_CLOSES;
}

static void *serve(void *arg)
{
    struct replay_server *s = arg;
    for (int fd; (fd = accept(s->listener, NULL, NULL)) >= 0; close(fd)) {
        SSL *ssl = SSL_new(s->ctx);
        if (ssl != NULL && SSL_set_fd(ssl, fd) == 1 && SSL_accept(ssl) == 1) {
            bool more = true;
            while (more && read_request(ssl)) {
                atomic_fetch_add(&s->requests, 1);
                more = answer(s, ssl);
            }
        }
        SSL_free(ssl);
        ERR_clear_error();
    }
    return NULL;
}

void replay_start(struct replay_server *s, const char *folder)
{
    char cert[128], key[128], ca[128];
    (void)snprintf(cert, sizeof(cert), "%s/server.crt", folder);
    (void)snprintf(key, sizeof(key), "%s/server.key", folder);
    (void)snprintf(ca, sizeof(ca), "%s/ca.crt", folder);
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    assert_non_null(ctx);
    assert_int_equal(SSL_CTX_use_certificate_file(ctx, cert, SSL_FILETYPE_PEM), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM), 1);
    assert_int_equal(SSL_CTX_load_verify_locations(ctx, ca, NULL), 1);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    (void)SSL_CTX_set_num_tickets(ctx, 0);
    s->ctx = ctx;
    s->len = 0;
    s->end = REPLAY_CLOSES;
    atomic_init(&s->requests, 0);
    assert_int_equal(pthread_mutex_init(&s->lock, NULL), 0);
    s->listener = kmip_listen(&s->port);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

void replay_answer(struct replay_server *s, const uint8_t *bytes, size_t len, enum replay_end end)
{
    assert_true(len <= sizeof(s->answer));
    pthread_mutex_lock(&s->lock);
    memcpy(s->answer, bytes, len);
    s->len = len;
    s->end = end;
    pthread_mutex_unlock(&s->lock);
}

void replay_stop(struct replay_server *s)
{
    if (s->ctx == NULL) return;
    (void)shutdown(s->listener, SHUT_RDWR); /* wakes accept() */
    pthread_join(s->thread, NULL);
    close(s->listener);
    SSL_CTX_free(s->ctx);
    pthread_mutex_destroy(&s->lock);
    s->ctx = NULL;
}
