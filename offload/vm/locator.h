/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_LOCATOR_H
#define RS_VM_LOCATOR_H

/*
 * Key locators: the text in `encryption.keySafe` and `encryption.bundle` of a
 * .vmx file and in `encryptionKeys` of a VMDK descriptor. A public grammar:
 *
 *   vmware:key/ LOCATOR
 *   LOCATOR = null/<VMWARE-EMPTYSTRING> | rawkey/TEXT
 *           | phrase/ID/DICTIONARY | fqid/ID/PROVIDER/KEY | role/ID/ROLE
 *           | ldap/ID/SERVER/DOMAIN/PORT/SSL/PATH | script/ID/PATH/SIGNATURE
 *           | list/(LOCATOR,LOCATOR...) | pair/(LOCATOR,MAC,DATA)
 *
 * Fields are written with every byte but letters and digits as %xx; readers
 * also take them as they are, as some tools show them. <VMWARE-NULL> stands
 * for an absent field and <VMWARE-EMPTYSTRING> for an empty one.
 *
 * The text comes from files of others: depth, length and number of locators
 * are limited. Nothing here is secret but what is locked inside. Threads: no
 * state.
 */

#include "offload/base/bytes.h"

#define RS_LOCATOR_TEXT_MAX  (1u << 20) /* bytes of text */
#define RS_LOCATOR_DEPTH_MAX 8u
#define RS_LOCATOR_NODES_MAX 256u
#define RS_LOCATOR_FIELDS    6u

enum rs_locator_type {
    RS_LOCATOR_NULL,
    RS_LOCATOR_RAWKEY,
    RS_LOCATOR_PHRASE,
    RS_LOCATOR_LDAP,
    RS_LOCATOR_SCRIPT,
    RS_LOCATOR_ROLE,
    RS_LOCATOR_FQID,
    RS_LOCATOR_LIST,
    RS_LOCATOR_PAIR,
};

/* Fields by type; NULL: absent. */
enum { RS_PHRASE_ID, RS_PHRASE_DICTIONARY };
enum { RS_FQID_ID, RS_FQID_PROVIDER, RS_FQID_KEY };
enum { RS_PAIR_MAC, RS_PAIR_DATA }; /* DATA in base64; the locker is the pair's only child */

struct rs_locator {
    enum rs_locator_type type;
    char *fields[RS_LOCATOR_FIELDS]; /* unescaped, NUL-ended */
    struct rs_locator *child;        /* list: the first; pair: the locker */
    struct rs_locator *next;         /* in the list it is in */
};

/*
 * Parses a whole text. RESEAL_EFORMAT with one line in `why`; RESEAL_ENOMEM.
 * *out is the caller's, for rs_locator_free().
 */
RS_MUST_CHECK int rs_locator_parse(const char *text, size_t len, struct rs_locator **out, char *why,
                                   size_t why_len);

void rs_locator_free(struct rs_locator *l);

/* A new locator of that type with copies of the fields (as many as the type has, NULL for absent ones); NULL
 * when memory is out. */
struct rs_locator *rs_locator_new(enum rs_locator_type type, const char *const *fields);

/* Appends to a list, or gives a pair its locker; takes ownership. */
void rs_locator_add(struct rs_locator *to, struct rs_locator *child);

/* The text, in the escaped form; the caller's to free(3). NULL when memory is out. */
char *rs_locator_text(const struct rs_locator *l);

/* ---- crypto dictionaries (1.2 of the grammar): name=value items, joined by ':' ------ */

/* The value of a name, unescaped, into `out`. 0, RESEAL_ENOKEY when there is none, RESEAL_EFORMAT when it
 * does not fit or is escaped wrongly. */
RS_MUST_CHECK int rs_dictionary_get(const char *dictionary, const char *name, char *out, size_t room);

/* Appends an item to a text of `room` bytes, value escaped. RESEAL_ESPACE. */
RS_MUST_CHECK int rs_dictionary_put(char *dictionary, size_t room, const char *name, const char *value);

#endif
