/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/keycalls.h"

#include "tests/support/cmocka.h"
#include "tests/support/keyd.h"

#include <unistd.h>

json_t *call_works(reseal *r, const char *method, json_t *args, const int *fds, unsigned nfds, int *out_fd)
{
    char why[RS_KEYSERVICE_WHY];
    json_t *result;
    int err = rs_keyservice_call(r, method, args, fds, nfds, &result, out_fd, why, sizeof(why));
    if (err != 0) fail_msg("%s: %d: %s", method, err, why);
    assert_non_null(result);
    return result;
}

void call_refused(reseal *r, const char *method, json_t *args, const int *fds, unsigned nfds, int code,
                  const char *words)
{
    char why[RS_KEYSERVICE_WHY];
    int err = rs_keyservice_call(r, method, args, fds, nfds, NULL, NULL, why, sizeof(why));
    if (err != code) fail_msg("%s: %d, not %d: %s", method, err, code, err != 0 ? why : "it works");
    if (strstr(why, words) == NULL) fail_msg("%s: '%s' does not say '%s'", method, why, words);
    assert_null(strchr(why, '\n'));
}

void call_native_provider(reseal *r, const char *name)
{
    RS_CLOSE int password = text_fd("of the backup", 13);
    int backup = -1;
    json_decref(call_works(r, "provider.add", json_pack("{s:s, s:s}", "name", name, "kind", "native"), NULL,
                           0, NULL));
    json_decref(
        call_works(r, "provider.export", json_pack("{s:s}", "provider", name), &password, 1, &backup));
    assert_true(backup >= 0);
    close(backup);
}

const char *call_text(const json_t *answer, const char *name)
{
    const char *text = json_string_value(json_object_get(answer, name));
    if (text == NULL) fail_msg("the answer has no '%s'", name);
    return text;
}
