/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "offload/base/text.h"
#include "offload/cli/vm-serve.h"

/* Text for an attribute of XML in quotes. */
static void put_xml(FILE *to, const char *text)
{
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '&':
            fputs("&amp;", to);
            break;
        case '<':
            fputs("&lt;", to);
            break;
        case '\'':
            fputs("&apos;", to);
            break;
        default:
            fputc(*text, to);
        }
    }
}

/* libvirt calls disks vda, vdb, ... */
static void put_target(FILE *to, unsigned i)
{
    fputs("vd", to);
    if (i >= 26) fputc((int)('a' + i / 26 - 1), to);
    fputc((int)('a' + i % 26), to);
}

static void put_libvirt(FILE *to, const struct rs_serve *s, unsigned i)
{
    fputs("<disk type='network' device='disk'>\n"
          "  <driver name='qemu' type='raw' cache='none'",
          to);
    fprintf(to, "%s/>\n  <source protocol='nbd' name='", s->discard ? " discard='unmap'" : "");
    put_xml(to, s->images[i].name);
    fputs("'>\n    <host transport='unix' socket='", to);
    put_xml(to, s->path);
    fputs("'/>\n  </source>\n  <target dev='", to);
    put_target(to, i);
    fputs("' bus='virtio'/>\n", to);
    if (s->read_only) fputs("  <readonly/>\n", to);
    fputs("</disk>\n", to);
}

/* A value among QEMU's options: commas are doubled. */
static void put_value(FILE *to, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == ',') fputc(',', to);
        fputc(*text, to);
    }
}

static void put_qemu(FILE *to, const struct rs_serve *s, unsigned i, const char *between)
{
    fprintf(to, "-blockdev%sdriver=nbd,node-name=reseal%u,%s%sserver.type=unix,server.path=", between, i,
            s->discard ? "discard=unmap," : "", s->read_only ? "read-only=on," : "");
    put_value(to, s->path);
    fputs(",export=", to);
    put_value(to, s->images[i].name);
    fprintf(to, "%s-device%svirtio-blk-pci,drive=reseal%u", between, between, i);
}

typedef void put_text(FILE *to, const struct rs_serve *s, unsigned i);

static void put_qemu_line(FILE *to, const struct rs_serve *s, unsigned i)
{
    put_qemu(to, s, i, " ");
}

static json_t *text_of(put_text *put, const struct rs_serve *s, unsigned i)
{
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);
    if (to == NULL) return NULL;
    put(to, s, i);
    json_t *j = fclose(to) == 0 ? json_string(text) : NULL;
    free(text);
    return j;
}

static int print_json(const struct rs_serve *s, const struct rs_vmserve *server)
{
    json_t *disks = json_array();
    for (unsigned i = 0; i < s->count; i++)
        json_array_append_new(disks, json_pack("{s:s, s:s, s:I, s:b, s:o, s:o}", "name", s->images[i].name,
                                               "image", s->images[i].look.path, "bytes",
                                               (json_int_t)rs_vmserve_size(server, i), "read_only",
                                               s->read_only, "libvirt", text_of(put_libvirt, s, i), "qemu",
                                               text_of(put_qemu_line, s, i)));
    json_t *all = json_pack("{s:s, s:o}", "socket", s->path, "disks", disks);
    int bad = all == NULL || json_dumpf(all, stdout, JSON_COMPACT) != 0;
    json_decref(all);
    return bad || putchar('\n') == EOF || fflush(stdout) != 0;
}

static int print_text(const struct rs_serve *s, const struct rs_vmserve *server)
{
    for (unsigned i = 0; i < s->count; i++) {
        char path[PATH_MAX];
        (void)snprintf(path, sizeof(path), "%s", s->images[i].look.path);
        rs_line_clean(path); /* a .vmx names it */
        printf("disk %s: %" PRIu64 " bytes%s, %s\n\n", s->images[i].name, rs_vmserve_size(server, i),
               s->read_only ? ", read only" : "", path);
        printf("for libvirt:\n");
        put_libvirt(stdout, s, i);
        printf("\nfor QEMU:\n");
        put_qemu(stdout, s, i, " ");
        printf("\n\n");
    }
    return fflush(stdout) != 0 || ferror(stdout);
}

int rs_serve_print(const struct rs_serve *s, const struct rs_vmserve *server)
{
    int bad = s->json ? print_json(s, server) : print_text(s, server);
    return bad ? RS_EXIT_FAILED : 0;
}
