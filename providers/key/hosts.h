/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_HOSTS_H
#define RS_KEY_HOSTS_H

/*
 * Clusters. A host is a reseal-keyd with an agent (host-agent.h); a manager is a reseal-keyd that has hosts.
 *
 * The manager keeps the ids of keys in use, "cluster-keys.jsonl", never the keys; what a host wants it
 * fetches from the provider. A host that began anew shows another instance, and gets everything again: the
 * keys in use, and the primary keys of native providers. A host keeps keys in memory alone, native providers
 * in its state folder. docs/key-service.md says the rest.
 */

#include "providers/key/keyd.h"
#include "providers/key/rpc.h"

#define RS_HOST_PORT     7443u
#define RS_HOST_NAME_MAX 64u
#define RS_HOSTS_MAX     256u
#define RS_HOST_KEYS_MAX 16384u

extern const struct rs_task_kind rs_task_host;

struct rs_host {
    struct rs_host *next;
    char name[RS_HOST_NAME_MAX], cluster[RS_HOST_NAME_MAX], address[300], pin[65];
    char instance[33]; /* "": not met since this manager began */
    char state[16];    /* "unknown", "incapable", "prepared", "safe" */
    char why[300];     /* of the last failure; "": none */
    json_t *removals;  /* [[tenant, provider]] or [[tenant, provider, key]]: what it has to forget */
    bool running, down, prepare;
    unsigned failures;
    uint64_t again_ns; /* when it is asked again; 0: at once */
    uint64_t anew_ns;  /* when it began anew last, */
    uint64_t pause_ns; /* and until when it is left alone, where it does so again and again */
    size_t at;         /* the next of hosts->keys that it wants */
    size_t told;       /* keys that there were when a failure was told last */
    uint32_t given;    /* generation of native providers that it has */

    struct rs_late_key *late; /* hosts-late.c: keys that were not in memory when it wanted them */
    unsigned ready;           /* of those: came, and wait for the next conversation */
    uint64_t late_ns;         /* when they are looked at again; UINT64_MAX: when something happens */
    uint64_t kdks_again_ns;   /* it refused a native provider: when that is given again; 0: it did not */
    uint32_t kdks_told;       /* generation for which that was an event */

    /* The conversation that is prepared or under way: */
    json_t *batch;   /* entries of hosts->keys */
    uint8_t *keks;   /* key memory */
    size_t end;      /* what `at` becomes, */
    uint32_t giving; /* `given`, */
    size_t removing; /* and removals that are gone, when it ends well */
};

struct rs_hosts {
    struct rs_host *first;
    json_t *clusters;           /* name -> [providers]: those whose keys its hosts get; none: all */
    json_t *managers;           /* fingerprint -> true: who may give this host keys */
    json_t *given;              /* "TENANT/NAME" -> true: native providers that a manager gave */
    json_t *keys;               /* [[tenant, provider, key]]: in use */
    uint32_t generation;        /* of native providers */
    struct rs_secrets identity; /* "cert", "key" */
    char fingerprint[65];
    const char *agent_address; /* NULL: no agent */
    struct rs_watch agent;
};

/* ---- hosts.c ---- */

/* Reads hosts and keys in use from the store. RESEAL_E...: the state folder cannot be used. */
RS_MUST_CHECK int rs_hosts_open(struct rs_keyd *d);
void rs_hosts_close(struct rs_keyd *d);
RS_MUST_CHECK int rs_hosts_save(struct rs_keyd *d);

/* A provider gave a key; it belongs to `tenant` ("": none). Its hosts get it. */
void rs_hosts_key_used(struct rs_keyd *d, const char *tenant, const char *provider, const char *key);
/* Native providers were added or changed. */
void rs_hosts_providers_changed(struct rs_keyd *d);
/* A provider is there that was not, or another way: hosts get its keys that they lack. */
void rs_hosts_provider_back(struct rs_keyd *d, struct rs_provider *p);
/* Hosts forget its keys, and a native one itself. */
void rs_hosts_provider_removed(struct rs_keyd *d, const char *tenant, const char *name);
/* Hosts forget one key. On disk with the next rs_hosts_save(). */
void rs_hosts_key_gone(struct rs_keyd *d, const char *tenant, const char *provider, const char *key);

/* ---- hosts-sync.c ---- */

/* Gives a host what it lacks. */
void rs_host_wake(struct rs_keyd *d, struct rs_host *h);
void rs_hosts_wake(struct rs_keyd *d);
int rs_hosts_tick(struct rs_keyd *d);
/* Ends what is under way with it. */
void rs_host_stop(struct rs_keyd *d, struct rs_host *h);

/* ---- hosts-late.c ---- */

/* The host wants the key of that index, which it does not wait for yet; the second asks whether it does. */
void rs_late_add(struct rs_host *h, size_t index);
void rs_late_again(struct rs_host *h, size_t index);
/* It waits for nothing any more. */
void rs_late_clear(struct rs_keyd *d, struct rs_host *h);
/* A key that its provider did not have is there after all. */
void rs_late_found(struct rs_keyd *d, size_t index);
void rs_late_look_again(struct rs_keyd *d);
/* How many its providers do not give at present. */
unsigned rs_late_missing(const struct rs_host *h);
/* Asks providers, when it is time. */
void rs_late_fetch(struct rs_keyd *d, struct rs_host *h);
/* Puts those that came into a conversation, at most RS_AGENT_KEYS; how many. It went well, or not. */
size_t rs_late_take(struct rs_keyd *d, struct rs_host *h, json_t *batch, uint8_t *keks);
void rs_late_given(struct rs_keyd *d, struct rs_host *h);
void rs_late_kept(struct rs_keyd *d, struct rs_host *h);

/* ---- hosts-agent.c ---- */

/* Tells the agent who we are, waits until it listens, and watches it. Ends reseal-keyd when it cannot: a line
 * in `why`. */
RS_MUST_CHECK int rs_hosts_agent(struct rs_keyd *d, const char *address, int sock, char *why, size_t why_len);

/* "incapable", "prepared", "safe": this host's own. */
const char *rs_hosts_state(struct rs_keyd *d);

#endif
