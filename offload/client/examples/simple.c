/* SPDX-License-Identifier: Apache-2.0 */
/* The simple call: seal a text with a key that nobody ever sees, and open it again. Needs a running reseald.
 */
#include <reseal/reseal.h>

#include <stdio.h>
#include <string.h>

static int check(const char *what, int64_t code)
{
    if (code < 0) fprintf(stderr, "%s: %s\n", what, reseal_strerror((int)code));
    return code < 0;
}

int main(void)
{
    const struct reseal_key_use use = {.size = sizeof(use),
                                       .cipher = RESEAL_GCM,
                                       .use = RESEAL_USE_SOURCE | RESEAL_USE_DESTINATION,
                                       .name = "raw:example"};
    const char text[] = "what the service works on, its clients need not keep";
    char sealed[sizeof(text)], opened[sizeof(text)];
    reseal *r;
    reseal_key key;
    reseal_session *seal, *open;

    if (check("reseal_open", reseal_open(&r, NULL))) return 1;
    if (check("reseal_key_random", reseal_key_random(r, 256, &use, &key))) return 1;

    struct reseal_transform t = {.size = sizeof(t), .counter_at = RESEAL_NO_COUNTER};
    t.source.cipher = RESEAL_PLAIN;
    t.destination = (struct reseal_side){.cipher = RESEAL_GCM, .key = key};
    if (check("session into the key", reseal_session_open(r, &t, &seal))) return 1;
    t.source = t.destination;
    t.destination = (struct reseal_side){.cipher = RESEAL_PLAIN};
    if (check("session out of the key", reseal_session_open(r, &t, &open))) return 1;

    /* The service chooses IV and salt and writes them into the record, with the tag. */
    struct reseal_record record = {.aad_len = 4, .aad = "file"};
    struct reseal_job job = {.in = text, .out = sealed, .len = sizeof(text), .destination = &record};
    if (check("seal", reseal_run(seal, &job))) return 1;

    record.derive = 1; /* the key is the session's own: HKDF(key, salt) */
    job = (struct reseal_job){.in = sealed, .out = opened, .len = sizeof(sealed), .source = &record};
    if (check("open", reseal_run(open, &job))) return 1;
    printf("%s\n", memcmp(text, opened, sizeof(text)) == 0 ? opened : "something else came out");

    sealed[0] ^= 1;
    printf("altered by one bit: %s\n", reseal_strerror((int)reseal_run(open, &job)));
    reseal_close(r);
    return 0;
}
