/* group.h - items submitted together (a batch, a map call): counted, measured, cancelled and awaited together. */
#ifndef TIDEGATE_GROUP_H
#define TIDEGATE_GROUP_H

#include <stddef.h>
#include <stdint.h>

#include "tidegate/histogram.h"
#include "tidegate/item.h"
#include "tidegate/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct tg_group_options {
    void *payload;          /* the binding's */
    unsigned char token[16]; /* opaque; written to the crash journal */
    /* An item whose next attempt is due later than this settles as DEFERRED, with due_ns set. 0: wait here however long. */
    uint64_t max_wait_ns;
    /* Nonzero: keep coarse histograms of the group (up to 20 KB while it lives). */
    int histograms;
    /* Nonzero: items may come in several calls of tg_core_submit; the group is not done before tg_group_seal. With 0 the
     * group is done as soon as all items of the first call have settled, and then takes no more (TG_CLOSED). */
    int open;
};

/* A group belongs to one lane. */
tg_status tg_group_create(struct tg_lane *lane, const struct tg_group_options *options, struct tg_group **out);
/* TG_BUSY until every item has settled. */
tg_status tg_group_destroy(struct tg_group *group);
/* No more items: the group is done when all its items have settled. Needed only after `open`. */
tg_status tg_group_seal(struct tg_group *group);

void *tg_group_payload(const struct tg_group *group);
struct tg_lane *tg_group_lane(const struct tg_group *group);
const unsigned char *tg_group_token(const struct tg_group *group);
/* 1 once sealed and every item has settled. Takes no lock (acquire). */
int tg_group_done(const struct tg_group *group);
/* Blocks without any other lock until done, tg_core_wake, or timeout_ns has passed on the real clock (TG_TIMEOUT).
 * TG_NEVER waits for ever. Returns TG_OK when woken: check tg_group_done. */
tg_status tg_group_wait(struct tg_group *group, uint64_t timeout_ns);

/* Waiting items become CANCELLED and are handed out by tg_core_take_settled; items in runs not begun too, when their
 * turn comes. A retry of a cancelled group is not made. Running items go on: tg_group_running lists them, so that the
 * caller can interrupt them. *n_waiting (may be NULL): how many items were cancelled. */
tg_status tg_group_cancel(struct tg_group *group, uint64_t *n_waiting);
/* The same with outcome RETURNED, for handing work back at shutdown: an item that waits for a retry is also returned
 * (its attempts and due_ns tell). */
tg_status tg_group_drain(struct tg_group *group, uint64_t *n_waiting);
/* Items of the group that run one by one now (coroutines, tg_core_next). *total is how many there are, `max` at most are
 * stored. The pointers are valid only while the caller keeps those items from settling. */
tg_status tg_group_running(struct tg_group *group, struct tg_item **items, size_t max, size_t *total);

/* Items of the group that wait in the lines of keys. *due_ns (may be NULL): the earliest time at which one of their keys is
 * known to open by itself (the end of a pause, the next permit of a rate), TG_NEVER when none is; costs a walk over all
 * that wait for keys of the lane. */
tg_status tg_group_limited(struct tg_group *group, uint64_t *n, uint64_t *due_ns);

struct tg_group_stats {
    uint64_t total;
    uint64_t settled;
    uint64_t outcomes[TG_OUTCOMES];
    uint64_t attempts;
    uint64_t retries;
    uint64_t first_start_ns;     /* 0 before the first start */
    uint64_t last_end_ns;        /* end of the last attempt */
    uint64_t sum_ns[TG_CLASSES]; /* over settled items */
    uint64_t min_ns[TG_CLASSES]; /* per item (RUNNING: per attempt); UINT64_MAX when empty */
    uint64_t max_ns[TG_CLASSES];
    uint64_t count[TG_CLASSES];  /* values behind min, max and the histograms */
};
tg_status tg_group_get_stats(struct tg_group *group, struct tg_group_stats *out);

struct tg_coarse_entry {
    uint32_t index; /* tg_coarse_index of the values */
    uint32_t count; /* saturates */
};
/* Sparse coarse histogram of one class, ascending; *n_used is how many entries there are, `max` at most are stored.
 * Zero entries for groups without histograms. */
tg_status tg_group_get_coarse(struct tg_group *group, enum tg_class class_, struct tg_coarse_entry *entries, size_t max,
                              size_t *n_used);

#ifdef __cplusplus
}
#endif
#endif
