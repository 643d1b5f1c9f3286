/* SPDX-License-Identifier: Apache-2.0 */
/* Every table of docs/ring-protocol.md says what the compiler says: each field of each shared struct, in both
 * directions. */
#include "offload/ring/control.h"
#include "offload/ring/layout.h"
#include "tests/support/cmocka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct field {
    const char *type, *name;
    size_t offset, size, total;
    bool found;
};

#define F(type, name)                                                                                        \
    {                                                                                                        \
#type, #name, offsetof(struct type, name), sizeof(((struct type *)0)->name), sizeof(struct type),    \
            false                                                                                            \
    }

static struct field fields[] = {
    F(rs_ring_geometry, magic),
    F(rs_ring_geometry, version),
    F(rs_ring_geometry, depth),
    F(rs_ring_geometry, total),
    F(rs_ring_geometry, data_offset),
    F(rs_ring_geometry, arena_offset),
    F(rs_ring_geometry, reserved),
    F(rs_ring_line, index),
    F(rs_ring_line, need_wake),
    F(rs_ring_line, reserved),
    F(rs_ring_control, geometry),
    F(rs_ring_control, sq_producer),
    F(rs_ring_control, sq_consumer),
    F(rs_ring_control, cq_producer),
    F(rs_ring_control, cq_consumer),
    F(rs_sqe, op),
    F(rs_sqe, flags),
    F(rs_sqe, in_region),
    F(rs_sqe, out_region),
    F(rs_sqe, session),
    F(rs_sqe, user_data),
    F(rs_sqe, in_off),
    F(rs_sqe, out_off),
    F(rs_sqe, len),
    F(rs_sqe, out_cap),
    F(rs_sqe, src_tweak),
    F(rs_sqe, dst_tweak),
    F(rs_sqe, aux),
    F(rs_sqe, raw_len),
    F(rs_cqe, user_data),
    F(rs_cqe, status),
    F(rs_cqe, out_len),
    F(rs_cqe, reserved),
    F(rs_aux_record, iv),
    F(rs_aux_record, aad_len),
    F(rs_aux_record, tag),
    F(rs_aux_record, salt),
    F(rs_aux_record, counter),
    F(rs_aux_record, derive),
    F(rs_aux_record, reserved),
    F(rs_aux_record, aad),
    F(rs_aux, source),
    F(rs_aux, destination),
    F(rs_aux, digest),
    F(rs_aux, zero_units),
    F(rs_aux, reserved),
    F(rs_aux, zero_map),
    F(rs_msg_header, magic),
    F(rs_msg_header, type),
    F(rs_msg_header, version),
    F(rs_msg_header, length),
    F(rs_msg_header, status),
    F(rs_msg_hello, min_version),
    F(rs_msg_hello, max_version),
    F(rs_msg_hello, features),
    F(rs_msg_hello, tenant),
    F(rs_msg_welcome, version),
    F(rs_msg_welcome, max_depth),
    F(rs_msg_welcome, features),
    F(rs_msg_welcome, max_arena),
    F(rs_msg_welcome, max_queues),
    F(rs_msg_welcome, max_sessions),
    F(rs_msg_welcome, max_keys),
    F(rs_msg_welcome, client),
    F(rs_msg_welcome, instance),
    F(rs_msg_side, cipher),
    F(rs_msg_side, unit),
    F(rs_msg_side, step),
    F(rs_msg_side, key),
    F(rs_msg_transform, stages),
    F(rs_msg_transform, level),
    F(rs_msg_transform, counter_at),
    F(rs_msg_transform, reserved),
    F(rs_msg_transform, source),
    F(rs_msg_transform, destination),
    F(rs_msg_session, session),
    F(rs_msg_session, reserved),
    F(rs_msg_queue, queue),
    F(rs_msg_queue, depth),
    F(rs_msg_queue, arena),
    F(rs_msg_queue, total),
    F(rs_msg_region, queue),
    F(rs_msg_region, region),
    F(rs_msg_region, len),
    F(rs_msg_key_use, cipher),
    F(rs_msg_key_use, use),
    F(rs_msg_key_use, unit),
    F(rs_msg_key_use, bits),
    F(rs_msg_key_use, step),
    F(rs_msg_key_use, name),
    F(rs_msg_key, key),
    F(rs_msg_luks, key),
    F(rs_msg_luks, version),
    F(rs_msg_luks, unit),
    F(rs_msg_luks, key_bits),
    F(rs_msg_luks, keyslot),
    F(rs_msg_luks, step),
    F(rs_msg_luks, first_tweak),
    F(rs_msg_luks, data_offset),
    F(rs_msg_luks, data_size),
    F(rs_msg_luks, header_size),
    F(rs_msg_luks, uuid),
    F(rs_msg_luks, cipher),
    F(rs_msg_luks_format, use),
    F(rs_msg_luks_format, version),
    F(rs_msg_luks_format, unit),
    F(rs_msg_luks_format, key_bits),
    F(rs_msg_luks_format, data_offset),
    F(rs_msg_luks_format, data_size),
    F(rs_msg_luks_format, pbkdf_ms),
    F(rs_msg_luks_format, pbkdf),
    F(rs_msg_luks_format, label),
};

#define T(number, name)                                                                                      \
    {                                                                                                        \
#name, number, name, false                                                                           \
    }

static struct {
    const char *name;
    unsigned said, is;
    bool found;
} types[] = {
    T(1, RS_MSG_HELLO),          T(2, RS_MSG_STATUS),      T(16, RS_MSG_SESSION_OPEN),
    T(17, RS_MSG_SESSION_CLOSE), T(18, RS_MSG_QUEUE_OPEN), T(19, RS_MSG_QUEUE_ATTACH),
    T(20, RS_MSG_QUEUE_CLOSE),   T(21, RS_MSG_REGION_ADD), T(32, RS_MSG_KEY_RAW),
    T(33, RS_MSG_KEY_RANDOM),    T(34, RS_MSG_KEY_LUKS),   T(35, RS_MSG_LUKS_FORMAT),
    T(36, RS_MSG_KEY_CLOSE),     T(37, RS_MSG_POLICY),      T(38, RS_MSG_RPC),
};

/* One row of a struct's table: "| offset | size | `field` | ...". */
static void check_field(const char *type, size_t total, size_t offset, size_t size, const char *name)
{
    for (size_t i = 0; i < RS_ARRAY_LEN(fields); i++) {
        struct field *f = &fields[i];
        if (strcmp(f->type, type) != 0 || strcmp(f->name, name) != 0) continue;
        if (f->offset != offset || f->size != size || f->total != total)
            fail_msg("%s.%s is %zu bytes at %zu of %zu", type, name, f->size, f->offset, f->total);
        if (f->found) fail_msg("%s.%s is there twice", type, name);
        f->found = true;
        return;
    }
    fail_msg("there is no %s.%s", type, name);
}

static void check_type(unsigned number, const char *name)
{
    for (size_t i = 0; i < RS_ARRAY_LEN(types); i++) {
        if (strcmp(types[i].name + strlen("RS_MSG_"), name) != 0) continue;
        assert_int_equal(types[i].is, number);
        assert_int_equal(types[i].said, number);
        types[i].found = true;
        return;
    }
    fail_msg("there is no message %s", name);
}

static void the_tables_are_true_and_complete(void **state)
{
    (void)state;
    const char *source = getenv("RESEAL_SOURCE");
    char path[1024], line[1024], type[64] = "", name[64];
    snprintf(path, sizeof(path), "%s/docs/ring-protocol.md", source != NULL ? source : ".");
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    size_t total = 0, offset, size;
    unsigned number;
    while (fgets(line, sizeof(line), f) != NULL) {
        if (line[0] == '#') type[0] = '\0';
        if (sscanf(line, "#### `%63[a-z_]`, %zu bytes", type, &total) == 2) continue;
        if (type[0] != '\0' && sscanf(line, "| %zu | %zu | `%63[a-z_]` |", &offset, &size, name) == 3)
            check_field(type, total, offset, size, name);
        else if (sscanf(line, "| %u | %63[A-Z_] | %*[a-z]", &number, name) == 2)
            check_type(number, name);
    }
    fclose(f);
    for (size_t i = 0; i < RS_ARRAY_LEN(fields); i++)
        if (!fields[i].found) fail_msg("%s.%s is not in the document", fields[i].type, fields[i].name);
    for (size_t i = 0; i < RS_ARRAY_LEN(types); i++)
        if (!types[i].found) fail_msg("%s is not in the document", types[i].name);
}

/* The listed fields fill each struct: none was added without being listed here. */
static void the_lists_leave_no_gap(void **state)
{
    (void)state;
    size_t end = 0;
    for (size_t i = 0; i < RS_ARRAY_LEN(fields); i++) {
        const struct field *f = &fields[i], *next = i + 1 < RS_ARRAY_LEN(fields) ? &fields[i + 1] : NULL;
        if (f->offset != end) fail_msg("there is something before %s.%s", f->type, f->name);
        end = f->offset + f->size;
        if (next != NULL && strcmp(next->type, f->type) == 0) continue;
        if (end != f->total) fail_msg("there is something behind %s.%s", f->type, f->name);
        end = 0;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tables_are_true_and_complete),
        cmocka_unit_test(the_lists_leave_no_gap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
