/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libssl on top of the provider: every AES-GCM suite of TLS 1.2 and 1.3 with
 * the provider at the client, at the server and at both, writes of all sorts of
 * sizes, new keys in between; and a record in which one bit changed on its way
 * ends the connection with bad_record_mac, and gives nothing.
 */
#include "offload/base/bytes.h"
#include "tests/support/ossl-run.h"
#include "tests/support/reference.h"

#include <openssl/err.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) assert_int_equal(call, 1)
#define ROOM     (64u << 10)
#define MUCH     (11u << 20)
#define SOME     (1u << 20)

enum { CLIENT, SERVER, ENDS };

/* A connection in memory. What end e writes lies in wire[e] until the other reads it. */
struct pair {
    SSL_CTX *ctx[ENDS];
    SSL *end[ENDS];
    BIO *wire[ENDS];
};

static EVP_PKEY *keys[2]; /* RSA, P-256 */
static X509 *certificates[2];
static uint8_t *text, *got;
static uint64_t seed;

/* Who serves the ciphers of the two ends: names for messages, and properties by ossl_properties(). */
static const int sides[][ENDS] = {
    {OSSL_TESTED, OSSL_DEFAULT}, {OSSL_DEFAULT, OSSL_TESTED}, {OSSL_TESTED, OSSL_TESTED}};

static size_t below(size_t limit)
{
    uint64_t r;
    reference_random(&seed, &r, sizeof(r));
    return (size_t)(r % limit);
}

static X509 *certify(EVP_PKEY *key)
{
    X509 *x = X509_new_ex(ossl_here.libctx, NULL);
    X509_NAME *name = X509_get_subject_name(x);
    OK(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"here", -1, -1, 0));
    OK(X509_set_issuer_name(x, name));
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(x), -3600));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(x), 3600));
    OK(X509_set_pubkey(x, key));
    EVP_MD *digest = EVP_MD_fetch(ossl_here.libctx, "SHA256", NULL);
    assert_true(X509_sign(x, key, digest) > 0);
    EVP_MD_free(digest);
    return x;
}

static int prepare(void **state)
{
    (void)state;
    seed = 11;
    keys[0] = EVP_PKEY_Q_keygen(ossl_here.libctx, NULL, "RSA", (size_t)2048);
    keys[1] = EVP_PKEY_Q_keygen(ossl_here.libctx, NULL, "EC", "P-256");
    for (int i = 0; i < 2; i++) certificates[i] = certify(keys[i]);
    text = malloc(ROOM);
    got = malloc(ROOM);
    assert_true(text != NULL && got != NULL);
    reference_random(&seed, text, ROOM);
    return 0;
}

static int forget(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        EVP_PKEY_free(keys[i]);
        X509_free(certificates[i]);
    }
    free(text);
    free(got);
    return 0;
}

static SSL_CTX *make_context(int end, int side, int version, const char *suite)
{
    /* All else that TLS needs comes from the default provider on both sides. */
    const char *properties = side == OSSL_TESTED ? "?provider=reseal" : "provider=default";
    SSL_CTX *ctx = SSL_CTX_new_ex(ossl_here.libctx, properties,
                                  end == CLIENT ? TLS_client_method() : TLS_server_method());
    assert_non_null(ctx);
    OK(SSL_CTX_set_min_proto_version(ctx, version));
    OK(SSL_CTX_set_max_proto_version(ctx, version));
    OK(version == TLS1_3_VERSION ? SSL_CTX_set_ciphersuites(ctx, suite)
                                 : SSL_CTX_set_cipher_list(ctx, suite));
    if (end == CLIENT) return ctx;
    for (int i = 0; i < 2; i++) {
        OK(SSL_CTX_use_certificate(ctx, certificates[i]));
        OK(SSL_CTX_use_PrivateKey(ctx, keys[i]));
    }
    OK(SSL_CTX_set_dh_auto(ctx, 1));
    return ctx;
}

static void shake_hands(struct pair *p)
{
    for (int turn = 0; !SSL_is_init_finished(p->end[CLIENT]) || !SSL_is_init_finished(p->end[SERVER]);
         turn++) {
        int r = SSL_do_handshake(p->end[turn % ENDS]);
        if (r != 1 && SSL_get_error(p->end[turn % ENDS], r) != SSL_ERROR_WANT_READ)
            ERR_print_errors_fp(stderr);
        assert_true(turn < 20);
    }
    /* Tickets that the server sent by itself. */
    assert_int_equal(SSL_read(p->end[CLIENT], got, 1), -1);
}

static void open_pair(struct pair *p, const int side[ENDS], int version, const char *suite)
{
    for (int e = 0; e < ENDS; e++) {
        p->ctx[e] = make_context(e, side[e], version, suite);
        p->end[e] = SSL_new(p->ctx[e]);
        p->wire[e] = BIO_new(BIO_s_mem());
        assert_true(p->end[e] != NULL && p->wire[e] != NULL);
        BIO_set_mem_eof_return(p->wire[e], -1);
    }
    for (int e = 0; e < ENDS; e++) {
        OK(BIO_up_ref(p->wire[e]));
        OK(BIO_up_ref(p->wire[1 - e]));
        SSL_set_bio(p->end[e], p->wire[1 - e], p->wire[e]);
    }
    SSL_set_connect_state(p->end[CLIENT]);
    SSL_set_accept_state(p->end[SERVER]);
    shake_hands(p);
    assert_string_equal(SSL_get_cipher_name(p->end[CLIENT]), suite);
}

static void close_pair(struct pair *p)
{
    for (int e = 0; e < ENDS; e++) {
        SSL_free(p->end[e]);
        SSL_CTX_free(p->ctx[e]);
        BIO_free(p->wire[e]);
    }
    ERR_clear_error();
}

/* One write of one end, read by the other in pieces. */
static void carry(struct pair *p, int from, size_t len)
{
    size_t from_where = below(ROOM - len + 1), done = 0, n;
    OK(SSL_write_ex(p->end[from], text + from_where, len, &n));
    assert_int_equal(n, len);
    while (done < len) {
        OK(SSL_read_ex(p->end[1 - from], got + done, 1 + below(ROOM - done), &n));
        done += n;
    }
    assert_int_equal(done, len);
    assert_memory_equal(got, text + from_where, len);
}

static size_t any_length(void)
{
    switch (below(4)) {
    case 0:
        return 1 + below(64);
    case 1:
        return 16384 - 16 + below(33); /* about a whole record */
    case 2:
        return 1 + below(1500);
    default:
        return 1 + below(ROOM - 1);
    }
}

static void bulk(const int side[ENDS], int version, const char *suite, size_t amount)
{
    struct pair p;
    open_pair(&p, side, version, suite);
    if (below(2) != 0) OK(SSL_set_max_send_fragment(p.end[SERVER], 512 + (long)below(9000)));
    if (version == TLS1_3_VERSION) OK(SSL_set_block_padding(p.end[CLIENT], 1 + below(4096)));
    for (size_t done = 0, len; done < amount; done += len) {
        len = any_length();
        if (version == TLS1_3_VERSION && below(64) == 0)
            OK(SSL_key_update(p.end[below(ENDS)],
                              below(2) != 0 ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED));
        carry(&p, (int)below(ENDS), len);
    }
    close_pair(&p);
}

static const char *const suites_13[] = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"};
static const char *const suites_12[] = {"ECDHE-RSA-AES256-GCM-SHA384",
                                        "ECDHE-RSA-AES128-GCM-SHA256",
                                        "ECDHE-ECDSA-AES256-GCM-SHA384",
                                        "ECDHE-ECDSA-AES128-GCM-SHA256",
                                        "DHE-RSA-AES256-GCM-SHA384",
                                        "DHE-RSA-AES128-GCM-SHA256",
                                        "AES256-GCM-SHA384",
                                        "AES128-GCM-SHA256"};

static void test_the_tested_provider_serves(void **state)
{
    (void)state;
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(ossl_here.libctx, "AES-256-GCM", "?provider=reseal");
    assert_non_null(cipher);
    assert_ptr_equal(EVP_CIPHER_get0_provider(cipher), ossl_here.provider[OSSL_TESTED]);
    EVP_CIPHER_free(cipher);
}

static void test_bulk_1_3(void **state)
{
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(suites_13); i++)
        for (size_t s = 0; s < RS_ARRAY_LEN(sides); s++)
            bulk(sides[s], TLS1_3_VERSION, suites_13[i], s == 0 ? MUCH : SOME);
}

static void test_bulk_1_2(void **state)
{
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(suites_12); i++)
        for (size_t s = 0; s < RS_ARRAY_LEN(sides); s++)
            bulk(sides[s], TLS1_2_VERSION, suites_12[i], i == 0 && s == 0 ? MUCH : SOME / 4);
}

/* ---- what was changed on the way -------------------------------------------------- */

static int last_reason(void)
{
    int reason = ERR_GET_REASON(ERR_peek_last_error());
    ERR_clear_error();
    return reason;
}

static bool all_are(const uint8_t *p, size_t len, uint8_t value)
{
    for (size_t i = 0; i < len; i++)
        if (p[i] != value) return false;
    return true;
}

/* Two writes of one end; of the second one's record a bit changes, at `part` quarters of what follows the
 * header. */
static void changed(const int side[ENDS], int version, const char *suite, int from, size_t len, size_t part)
{
    struct pair p;
    size_t n;
    char *record;
    open_pair(&p, side, version, suite);
    SSL *sender = p.end[from], *receiver = p.end[1 - from];
    OK(SSL_write_ex(sender, text, 1000, &n));
    long before = BIO_get_mem_data(p.wire[from], NULL);
    OK(SSL_write_ex(sender, text + 1000, len, &n));
    long after = BIO_get_mem_data(p.wire[from], &record);
    size_t body = (size_t)(after - before) - 5;
    assert_true(body >= len + 16);
    record[(size_t)before + 5 + RS_MIN(body * part / 4, body - 1)] ^= (char)(1u << below(8));

    memset(got, 0xa5, ROOM);
    OK(SSL_read_ex(receiver, got, ROOM, &n));
    assert_int_equal(n, 1000);
    assert_memory_equal(got, text, 1000);
    memset(got, 0xa5, ROOM);
    assert_int_equal(SSL_read_ex(receiver, got, ROOM, &n), 0);
    assert_int_equal(SSL_get_error(receiver, 0), SSL_ERROR_SSL);
    assert_int_equal(last_reason(), SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC);
    /* Neither then nor when it is asked again. */
    assert_int_equal(SSL_read_ex(receiver, got, ROOM, &n), 0);
    assert_true(all_are(got, ROOM, 0xa5));
    ERR_clear_error();
    assert_int_equal(SSL_read_ex(sender, got, ROOM, &n), 0);
    assert_int_equal(last_reason(), SSL_R_SSLV3_ALERT_BAD_RECORD_MAC);
    close_pair(&p);
}

static void test_a_changed_record(void **state)
{
    (void)state;
    static const size_t lengths[] = {1, 16, 777, 16384};
    for (size_t s = 0; s < RS_ARRAY_LEN(sides); s++)
        for (size_t l = 0; l < RS_ARRAY_LEN(lengths); l++)
            for (size_t part = 0; part <= 4; part++) {
                int from = (int)(l + part) % ENDS;
                changed(sides[s], TLS1_3_VERSION, suites_13[part % 2], from, lengths[l], part);
                changed(sides[s], TLS1_2_VERSION, suites_12[2 + part % 2], from, lengths[l], part);
            }
}

/* A record left out, or taken again, is none that was expected. */
static void test_a_record_out_of_turn(void **state)
{
    (void)state;
    for (size_t s = 0; s < RS_ARRAY_LEN(sides); s++)
        for (int newer = 0; newer < 2; newer++)
            for (int twice = 0; twice < 2; twice++) {
                struct pair p;
                size_t n;
                char first[200];
                open_pair(&p, sides[s], newer ? TLS1_3_VERSION : TLS1_2_VERSION,
                          newer ? suites_13[1] : suites_12[0]);
                OK(SSL_write_ex(p.end[CLIENT], text, 100, &n));
                int len = BIO_read(p.wire[CLIENT], first, sizeof(first));
                assert_true(len > 100);
                if (twice) {
                    assert_int_equal(BIO_write(p.wire[CLIENT], first, len), len);
                    OK(SSL_read_ex(p.end[SERVER], got, ROOM, &n));
                    assert_int_equal(BIO_write(p.wire[CLIENT], first, len), len);
                } else {
                    OK(SSL_write_ex(p.end[CLIENT], text, 100, &n));
                }
                assert_int_equal(SSL_read_ex(p.end[SERVER], got, ROOM, &n), 0);
                assert_int_equal(last_reason(), SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC);
                close_pair(&p);
            }
}

int main(void)
{
    const struct CMUnitTest ossl_tls_bulk[] = {
        cmocka_unit_test_setup_teardown(test_the_tested_provider_serves, prepare, forget),
        cmocka_unit_test_setup_teardown(test_bulk_1_3, prepare, forget),
        cmocka_unit_test_setup_teardown(test_bulk_1_2, prepare, forget),
        cmocka_unit_test_setup_teardown(test_a_changed_record, prepare, forget),
        cmocka_unit_test_setup_teardown(test_a_record_out_of_turn, prepare, forget),
    };
    return ossl_run(ossl_tls_bulk);
}
