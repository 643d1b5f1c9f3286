/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_EVENTS_H
#define RS_KEY_EVENTS_H

/*
 * Events and audit of reseal-keyd: JSON lines in the state folder, "events.jsonl"
 * and "audit.jsonl", a number and a time in each; followers (event.follow)
 * and the webhook get events as they come. No secret is in one, ever; texts of others are cut
 * to 256 bytes and control characters are replaced.
 */

#include "providers/key/journal.h"
#include "providers/key/kek.h"
#include "providers/key/keyd.h"

/* The ids that documents of the field know, and ours, which begin with "reseal.". */
#define RS_EVENT_HOST_KEY_ERROR  "com.vmware.vc.host.Crypto.SendKeyError.HostError"
#define RS_EVENT_NEW_KEY_MISSING "com.vmware.vc.host.Crypto.HostKey.NewKey.KeyMissingOnKMS"
#define RS_EVENT_NEW_KEY_ERROR   "com.vmware.vc.host.Crypto.HostKey.NewKey.KMSClusterError"
#define RS_EVENT_KEY_MISSING     "com.vmware.vc.kms.crypto.SendKeyError.KeyMissingOnKMS"
#define RS_EVENT_KMS_ERROR       "com.vmware.vc.kms.crypto.SendKeyError.KMSClusterError"
#define RS_EVENT_KEY_GENERATE    "com.vmware.vc.kms.crypto.KeyGenerateFail"
#define RS_EVENT_KMS_UNREACHABLE "com.vmware.vc.kms.crypto.Unreachable"
#define RS_EVENT_NOT_BACKED_UP   "com.vmware.vc.kms.crypto.NotBackedUp"
#define RS_EVENT_ALL_BACKED_UP   "com.vmware.vc.kms.crypto.AllBackedUp"
#define RS_EVENT_CLIENT_CERT     "com.vmware.vc.vecs.KMSClientCertExpirationEvent"
#define RS_EVENT_SERVER_CERT     "com.vmware.vc.vecs.KMSServerCertExpirationEvent"
#define RS_EVENT_TA_CLIENT_CERT  "com.vmware.vc.TrustAuthority.KMSClientCertExpirationEvent"
#define RS_EVENT_TA_SERVER_CERT  "com.vmware.vc.TrustAuthority.KMSServerCertExpirationEvent"
#define RS_EVENT_VM_LOCKED_HOST  "com.vmware.vc.vm.Crypto.VMLocked.KeyMissingOnHost"
#define RS_EVENT_VM_LOCKED_KMS   "com.vmware.vc.vm.Crypto.VMLocked.KeyMissingOnKMS"
#define RS_EVENT_VM_LOCKED_ERROR "com.vmware.vc.vm.Crypto.VMLocked.KMSClusterError"
#define RS_EVENT_VM_LOCKED_TA    "com.vmware.vc.vm.Crypto.VMLocked.TAKeyMissingOnHost"
#define RS_EVENT_VM_LOCKED_TA_DOWN                                                                           \
    "com.vmware.vc.vm.Crypto.VMLocked.TAKMSClusterUnavaliable" /* so they spell it */
#define RS_EVENT_VM_UNLOCKED   "com.vmware.vc.vm.Crypto.VMUnlocked"
#define RS_EVENT_REKEY_FAIL    "com.vmware.vc.vm.crypto.RekeyFail"
#define RS_EVENT_NO_DISK_SPACE "com.vmware.vc.vm.crypto.NoDiskSpace"
#define RS_EVENT_MIXED_KEYS    "com.vmware.vc.vm.crypto.DiskchainUsingMixedKeys"
#define RS_EVENT_OPERATION     "com.vmware.vc.crypto.Operation"
#define RS_EVENT_TA_DOWN       "com.vmware.vc.kms.crypto.TrustAuthority.ClusterNotAvailable"
#define RS_EVENT_TA_PARTLY     "com.vmware.vc.kms.crypto.TrustAuthority.ClusterUnhealthy"
#define RS_EVENT_TA_UNHEALTHY  "com.vmware.vc.kms.crypto.TrustAuthority.KmsUnhealthy"
#define RS_EVENT_ATTEST_PASS   "com.vmware.vc.TaHostAttestPassEvent"
#define RS_EVENT_ATTEST_FAIL   "com.vmware.vc.TaHostAttestFailEvent"
#define RS_EVENT_HOST_ENABLED  "com.vmware.vc.host.Crypto.Enabled"
#define RS_EVENT_HOST_KEY      "com.vmware.vc.crypto.HostKeyUpdatedEvent"
#define RS_EVENT_LINES_LOST    "reseal.journal.LinesLost"
#define RS_EVENT_LINES_DROPPED "reseal.journal.LinesDropped"
#define RS_EVENT_CORE_DUMPED   "esx.problem.application.core.dumped.encrypted"

/*
 * Raises an event of a tenant ("": the service's own). Takes `details`, an object of texts and numbers or
 * NULL. Where it cannot be written, stderr says so once: an event never makes an operation fail.
 */
void rs_event(struct rs_keyd *d, const char *tenant, const char *id, const char *message, json_t *details);

/*
 * One line for each use of a key and each administrative act, also for those that were refused, written
 * before the answer goes out. `object`: "kek:PROVIDER/ID", "provider:NAME", "luks:UUID". Takes `details`.
 */
void rs_audit(struct rs_keyd *d, const struct rs_who *who, const char *operation, const char *object,
              int status, json_t *details);

/* The same for what has happened and need not wait for its line: it waits in memory for the next one, or for
 * rs_audit_now(). */
void rs_audit_later(struct rs_keyd *d, const struct rs_who *who, const char *operation, const char *object,
                    int status, json_t *details);
void rs_audit_now(struct rs_keyd *d);

/*
 * False: the audit cannot be written, and nothing that has a line in it may be done; the line says so. Lines
 * that wait are tried again first.
 */
RS_MUST_CHECK bool rs_audit_works(struct rs_keyd *d, char *why, size_t why_len);

/* ---- event-repeats.c ---- */

/*
 * For what a user can make happen as often as it likes: how many times it has happened since it was told
 * last, this one included, when it is to be told now; 0: it is only counted. The same thing (`what`: an
 * event's id, an operation; and what is said of it) with the same object of a tenant by the same user is told
 * the first time in a minute, then the 10th, the 100th and so on; and of more than 64 in a minute by a user
 * without Cryptographer.ManageKeys those that came later count as one. A count that has not been told yet is
 * told with the first of a later minute.
 */
RS_MUST_CHECK uint64_t rs_events_times(struct rs_keyd *d, const struct rs_who *who, const char *tenant,
                                       const char *what, const char *says, const char *object);

/* It went well meanwhile: the next time is told. */
void rs_events_went_well(struct rs_keyd *d, const char *tenant, const char *object);

#define RS_REPEATS 1024u

struct rs_repeat {
    uint64_t what, object; /* hashes */
    uint64_t begun;        /* rs_now_ns(); 0: free */
    uint64_t count, untold;
    uint32_t uid;
};

/* ---- reseal-keyd itself, and the methods event.* and audit.* ------------------------------ */

struct rs_store;
struct rs_follower; /* event-follow.c */
struct rs_webhook;  /* webhook.c */

/* d->events, which rs_events_open() makes. */
struct rs_events {
    struct rs_store *store; /* NULL: memory alone */
    struct rs_journal events, audit;
    uint64_t lost_told;               /* of lines that were lost, those that an event told of; */
    uint64_t audit_told, events_told; /* and of those that were dropped */
    uint64_t count_ns;                /* when the next file of an earlier run is counted */
    struct rs_watch flusher;          /* flush.c */
    bool flusher_runs, flushing;
    struct rs_follower *followers;
    struct rs_webhook *webhooks; /* webhook.c */
    struct rs_repeat repeats[RS_REPEATS];
};

/*
 * Opens both journals: numbers go on where those in the store ended, and the last lines are in memory again.
 * Until then events and audit lines go to stderr. RESEAL_ENOMEM.
 */
RS_MUST_CHECK int rs_events_open(struct rs_keyd *d, struct rs_store *store);
void rs_events_close(struct rs_keyd *d);

/* Counts what earlier runs left, a file at a time; milliseconds until it must be called again, -1: never. */
int rs_events_tick(struct rs_keyd *d);

/* True when this client may read the line: its tenant's, those of no tenant with ManageKeys, all for
 * root and the user of the service. Of the audit, without ManageKeys, only what it did itself. */
RS_MUST_CHECK bool rs_events_visible(const struct rs_keyd *d, const struct rs_journal_line *line, bool audit,
                                     const struct rs_who *who);

/* True for root and the user that reseal-keyd runs as. */
RS_MUST_CHECK bool rs_events_all_visible(uint32_t uid);

/* ---- event-follow.c ---- */

/*
 * A new follower of lines after `since` whose id matches the pattern: *out becomes the client's end of a
 * SOCK_SEQPACKET pair on which a message is a line. Lines wait in memory until the follower takes
 * them; one that is slower than RS_JOURNAL_RING lines gets a last line {"lost": ...} and the end of file.
 * RESEAL_ELIMIT, RESEAL_EIO, RESEAL_ENOMEM.
 */
RS_MUST_CHECK int rs_follow(struct rs_keyd *d, const struct rs_who *who, uint64_t since, const char *pattern,
                            int *out);
/* Sends what is new to all followers; never blocks. */
void rs_followers_wake(struct rs_keyd *d);
void rs_followers_end(struct rs_keyd *d);

#endif
