/* journal.h - which items run now, in a file that survives the process.
 *
 * A journal is a file mapped shared: one 64-byte slot per thread (or per coroutine in flight), written with plain stores.
 * The kernel keeps the pages when the process is killed, so that its supervisor can read what was running. Format:
 * README.md, "Crash journal format".
 *
 * A slot has one writer at a time. tg_journal_begin on a slot that is in use ends its previous item: back-to-back items
 * cost one call each. Nothing here locks, allocates or calls the system, except create, close and read.
 */
#ifndef TIDEGATE_JOURNAL_H
#define TIDEGATE_JOURNAL_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tidegate/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TG_JOURNAL_VERSION 1
#define TG_JOURNAL_MAX_SLOTS 65536

/* One slot, one cache line. state: low 2 bits TG__SLOT_*, the rest a sequence number that grows with every begin. */
struct tg_journal_slot {
    _Atomic uint64_t state;
    _Atomic uint64_t position;
    _Atomic uint64_t token[2];
    _Atomic uint64_t start_ns;
    _Atomic uint32_t attempt;
    _Atomic uint32_t tag;
    _Atomic uint64_t blamed; /* the state during which this slot's item was found to end the process */
    uint64_t reserved;
};
enum { TG__SLOT_IDLE = 0, TG__SLOT_WRITING = 1, TG__SLOT_RUNNING = 2 };

struct tg_journal {
    struct tg_journal_slot *slots;
    uint32_t n_slots;
    /* internal */
    uint32_t *free_slots;
    uint32_t n_free;
    int fd;
    void *map;
    size_t map_size;
    _Atomic uint32_t lock;
};

/* Creates (or overwrites) the file at path with n slots, all idle. The file is made 0600, its blocks are
 * reserved, so that a full disk is an error now and not a SIGBUS later. */
tg_status tg_journal_create(const char *path, uint32_t slots, struct tg_journal **out);
/* Unmaps; the file stays (unlink it after a clean end). In a forked child it only unmaps the child's view. */
void tg_journal_destroy(struct tg_journal *journal);

/* Hands out a free slot for one writer; TG_FULL when none is left: run without. Any thread. */
tg_status tg_journal_acquire(struct tg_journal *journal, uint32_t *slot);
void tg_journal_release(struct tg_journal *journal, uint32_t slot);

static inline void tg_journal_begin(struct tg_journal *journal, uint32_t slot, const unsigned char token[16],
                                    uint64_t position, uint32_t attempt, uint64_t start_ns, uint32_t tag)
{
    struct tg_journal_slot *s = &journal->slots[slot];
    uint64_t words[2];
    memcpy(words, token, sizeof words);
    uint64_t sequence = (atomic_load_explicit(&s->state, memory_order_relaxed) | 3u) + 1u;
    /* WRITING is seen before any new field: the fence pairs with the acquire load of `state` in tg_journal_read. A reader
     * that finds WRITING knows that the function had not been called. */
    atomic_store_explicit(&s->state, sequence | TG__SLOT_WRITING, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&s->position, position, memory_order_relaxed);
    atomic_store_explicit(&s->token[0], words[0], memory_order_relaxed);
    atomic_store_explicit(&s->token[1], words[1], memory_order_relaxed);
    atomic_store_explicit(&s->start_ns, start_ns, memory_order_relaxed);
    atomic_store_explicit(&s->attempt, attempt, memory_order_relaxed);
    atomic_store_explicit(&s->tag, tag, memory_order_relaxed);
    /* release: publishes the fields; partner as above. */
    atomic_store_explicit(&s->state, sequence | TG__SLOT_RUNNING, memory_order_release);
}

static inline void tg_journal_end(struct tg_journal *journal, uint32_t slot)
{
    struct tg_journal_slot *s = &journal->slots[slot];
    uint64_t sequence = atomic_load_explicit(&s->state, memory_order_relaxed) & ~(uint64_t)3;
    /* release: the effects of the item come before the note that it ended. */
    atomic_store_explicit(&s->state, sequence | TG__SLOT_IDLE, memory_order_release);
}

/* The item of this slot is what ends the process. Safe in a signal handler. */
static inline void tg_journal_blame(struct tg_journal_slot *s)
{
    /* Only its own thread calls it, so the state stands still. */
    atomic_store_explicit(&s->blamed, atomic_load_explicit(&s->state, memory_order_relaxed), memory_order_relaxed);
}

struct tg_journal_entry {
    uint32_t slot;
    uint32_t tag;
    unsigned char token[16];
    uint64_t position;
    uint64_t sequence;
    uint64_t start_ns; /* on the clock of the process that wrote it (CLOCK_MONOTONIC, so comparable on the same boot) */
    uint32_t attempt;
    int blamed; /* it is what ended the process */
};
struct tg_journal_info {
    uint32_t version;
    uint32_t n_slots;
    uint64_t pid;
    uint64_t created_wall_ns; /* CLOCK_REALTIME */
    uint64_t created_mono_ns;
    uint32_t running;         /* entries reported */
    uint32_t torn;            /* slots caught in the middle of a begin: their item was not started */
};

/* Reads a journal, of a dead or a living process. `entry` is called for every running item; nonzero from it stops. `info`
 * and `entry` may be NULL. Any file at all is read safely: TG_IO, TG_CORRUPT or TG_VERSION. */
tg_status tg_journal_read(const char *path, int (*entry)(void *ctx, const struct tg_journal_entry *entry), void *ctx,
                          struct tg_journal_info *info);
/* The same for bytes in memory (what the fuzzer calls). */
tg_status tg_journal_parse(const void *bytes, size_t size, int (*entry)(void *ctx, const struct tg_journal_entry *entry),
                           void *ctx, struct tg_journal_info *info);

#ifdef __cplusplus
}
#endif
#endif
