/* journal.c - making a crash journal and handing out its slots. The format is in journal_format.h and README.md.
 *
 * Slots are written by their owners without any lock (tg_journal_begin, _end). The list of free slots has a small spin
 * lock: it is touched once per thread or coroutine, for a few instructions.
 */
#include "tidegate/journal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "journal_format.h"

static uint64_t wall_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t mono_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int open_file(const char *path, size_t size)
{
    /* Not O_TRUNC on the old file: a reader that has it mapped would get SIGBUS. A new file takes the name. */
    unlink(path);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return -1;
    }
    if (posix_fallocate(fd, 0, (off_t)size) != 0) {
        close(fd);
        unlink(path);
        return -1;
    }
    return fd;
}

static void write_header(void *map, uint32_t slots)
{
    struct tg__journal_header header = {
        .version = TG_JOURNAL_VERSION,
        .header_size = sizeof header,
        .slot_size = sizeof(struct tg_journal_slot),
        .n_slots = slots,
        .byte_order = TG__JOURNAL_BYTE_ORDER,
        .pid = (uint64_t)getpid(),
        .created_wall_ns = wall_now(),
        .created_mono_ns = mono_now(),
    };
    memcpy(map, &header, sizeof header);
    /* The magic comes last: a file without it was never a journal. */
    memcpy(map, TG__JOURNAL_MAGIC, 8);
}

static uint32_t *make_free_list(uint32_t slots)
{
    uint32_t *list = malloc(slots * sizeof *list);
    for (uint32_t i = 0; list != NULL && i < slots; i++) {
        list[i] = slots - 1 - i; /* slot 0 goes out first */
    }
    return list;
}

tg_status tg_journal_create(const char *path, uint32_t slots, struct tg_journal **out)
{
    if (slots == 0 || slots > TG_JOURNAL_MAX_SLOTS) {
        return TG_INVALID;
    }
    tg_status status = TG_NOMEM;
    struct tg_journal *journal = calloc(1, sizeof *journal);
    if (journal == NULL) {
        return TG_NOMEM;
    }
    journal->free_slots = make_free_list(slots);
    if (journal->free_slots == NULL) {
        goto fail_journal;
    }
    status = TG_IO;
    journal->map_size = sizeof(struct tg__journal_header) + slots * sizeof(struct tg_journal_slot);
    journal->fd = open_file(path, journal->map_size);
    if (journal->fd < 0) {
        goto fail_list;
    }
    journal->map = mmap(NULL, journal->map_size, PROT_READ | PROT_WRITE, MAP_SHARED, journal->fd, 0);
    if (journal->map == MAP_FAILED) {
        goto fail_file;
    }
    write_header(journal->map, slots);
    journal->slots = (struct tg_journal_slot *)((char *)journal->map + sizeof(struct tg__journal_header));
    journal->n_slots = journal->n_free = slots;
    *out = journal;
    return TG_OK;

fail_file:
    close(journal->fd);
    unlink(path);
fail_list:
    free(journal->free_slots);
fail_journal:
    free(journal);
    return status;
}

void tg_journal_destroy(struct tg_journal *journal)
{
    if (journal == NULL) {
        return;
    }
    munmap(journal->map, journal->map_size);
    close(journal->fd);
    free(journal->free_slots);
    free(journal);
}

static void lock(struct tg_journal *journal)
{
    /* acquire: pairs with the release in unlock(). */
    while (atomic_exchange_explicit(&journal->lock, 1, memory_order_acquire) != 0) {
    }
}

static void unlock(struct tg_journal *journal)
{
    /* release: pairs with the acquire in lock(). */
    atomic_store_explicit(&journal->lock, 0, memory_order_release);
}

tg_status tg_journal_acquire(struct tg_journal *journal, uint32_t *slot)
{
    tg_status status = TG_FULL;
    lock(journal);
    if (journal->n_free != 0) {
        *slot = journal->free_slots[--journal->n_free];
        status = TG_OK;
    }
    unlock(journal);
    return status;
}

void tg_journal_release(struct tg_journal *journal, uint32_t slot)
{
    if (slot >= journal->n_slots) {
        return;
    }
    tg_journal_end(journal, slot);
    lock(journal);
    if (journal->n_free < journal->n_slots) {
        journal->free_slots[journal->n_free++] = slot;
    }
    unlock(journal);
}
