/* SPDX-License-Identifier: Apache-2.0 */
/* Key locators of foreign files: what parses, prints, and what is printed parses to the same. */
#include "offload/vm/locator.h"
#include "reseal/reseal.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rs_locator *one, *two;
    char why[160] = "", value[128];
    int err = rs_locator_parse((const char *)data, size, &one, why, sizeof(why));
    if (err == RESEAL_EFORMAT && why[0] == '\0') abort();
    if (err != 0) return 0;
    char *text = rs_locator_text(one);
    if (text == NULL || rs_locator_parse(text, strlen(text), &two, why, sizeof(why)) != 0) abort();
    char *again = rs_locator_text(two);
    if (again == NULL || strcmp(text, again) != 0) abort();
    for (const struct rs_locator *l = one; l != NULL; l = l->child)
        if (l->type == RS_LOCATOR_PHRASE && l->fields[RS_PHRASE_DICTIONARY] != NULL)
            (void)!rs_dictionary_get(l->fields[RS_PHRASE_DICTIONARY], "salt", value, sizeof(value));
    free(text);
    free(again);
    rs_locator_free(one);
    rs_locator_free(two);
    return 0;
}
