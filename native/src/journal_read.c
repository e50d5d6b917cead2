/* journal_read.c - reading a crash journal: any bytes at all, and files that are being written. No state. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "journal_format.h"

static tg_status check_header(const unsigned char *bytes, size_t size, struct tg__journal_header *header)
{
    if (size < sizeof *header) {
        return TG_CORRUPT;
    }
    memcpy(header, bytes, sizeof *header);
    if (memcmp(header->magic, TG__JOURNAL_MAGIC, sizeof header->magic) != 0) {
        return TG_CORRUPT;
    }
    if (header->version != TG_JOURNAL_VERSION || header->byte_order != TG__JOURNAL_BYTE_ORDER) {
        return TG_VERSION;
    }
    if (header->header_size != sizeof *header || header->slot_size != sizeof(struct tg_journal_slot) ||
        header->n_slots == 0 || header->n_slots > TG_JOURNAL_MAX_SLOTS) {
        return TG_CORRUPT;
    }
    /* A longer file is not one of ours either: the size was reserved exactly. */
    return size == sizeof *header + (size_t)header->n_slots * header->slot_size ? TG_OK : TG_CORRUPT;
}

/* Reads one slot as a writer may be changing it. Returns its state word; fields are valid when it is RUNNING. */
static uint64_t read_slot(struct tg_journal_slot *slot, struct tg_journal_entry *entry)
{
    /* A slot that changed while it was read was busy, so its item ended: look again a few times, then call it torn. */
    for (int tries = 0; tries < 4; tries++) {
        /* acquire: pairs with the releases in tg_journal_begin. */
        uint64_t state = atomic_load_explicit(&slot->state, memory_order_acquire);
        if ((state & 3) != TG__SLOT_RUNNING) {
            return state;
        }
        uint64_t words[2];
        entry->position = atomic_load_explicit(&slot->position, memory_order_relaxed);
        words[0] = atomic_load_explicit(&slot->token[0], memory_order_relaxed);
        words[1] = atomic_load_explicit(&slot->token[1], memory_order_relaxed);
        entry->start_ns = atomic_load_explicit(&slot->start_ns, memory_order_relaxed);
        entry->attempt = atomic_load_explicit(&slot->attempt, memory_order_relaxed);
        entry->tag = atomic_load_explicit(&slot->tag, memory_order_relaxed);
        entry->blamed = atomic_load_explicit(&slot->blamed, memory_order_relaxed) == state;
        /* The fields are read before the state is read again. */
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&slot->state, memory_order_relaxed) == state) {
            memcpy(entry->token, words, sizeof words);
            entry->sequence = state >> 2;
            return state;
        }
    }
    return TG__SLOT_WRITING;
}

static void read_slots(struct tg_journal_slot *slots, uint32_t n,
                       int (*entry)(void *ctx, const struct tg_journal_entry *entry), void *ctx,
                       struct tg_journal_info *info)
{
    for (uint32_t i = 0; i < n; i++) {
        struct tg_journal_entry found = {.slot = i};
        switch (read_slot(&slots[i], &found) & 3) {
        case TG__SLOT_RUNNING:
            info->running++;
            if (entry != NULL && entry(ctx, &found) != 0) {
                return;
            }
            break;
        case TG__SLOT_IDLE:
            break;
        default:
            info->torn++;
        }
    }
}

static tg_status parse(void *bytes, size_t size, int (*entry)(void *ctx, const struct tg_journal_entry *entry), void *ctx,
                       struct tg_journal_info *info)
{
    struct tg__journal_header header;
    struct tg_journal_info found = {0};
    tg_status status = check_header(bytes, size, &header);
    if (status == TG_OK) {
        found.version = header.version;
        found.n_slots = header.n_slots;
        found.pid = header.pid;
        found.created_wall_ns = header.created_wall_ns;
        found.created_mono_ns = header.created_mono_ns;
        read_slots((struct tg_journal_slot *)((char *)bytes + sizeof header), header.n_slots, entry, ctx, &found);
    }
    if (info != NULL) {
        *info = found;
    }
    return status;
}

tg_status tg_journal_parse(const void *bytes, size_t size, int (*entry)(void *ctx, const struct tg_journal_entry *entry),
                           void *ctx, struct tg_journal_info *info)
{
    /* Copied: the atomics of a slot need their alignment, and nobody may change the bytes meanwhile. */
    void *copy = malloc(size != 0 ? size : 1);
    if (copy == NULL) {
        return TG_NOMEM;
    }
    if (size != 0) {
        memcpy(copy, bytes, size);
    }
    tg_status status = parse(copy, size, entry, ctx, info);
    free(copy);
    return status;
}

tg_status tg_journal_read(const char *path, int (*entry)(void *ctx, const struct tg_journal_entry *entry), void *ctx,
                          struct tg_journal_info *info)
{
    if (info != NULL) {
        memset(info, 0, sizeof *info);
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        return TG_IO;
    }
    const size_t largest = sizeof(struct tg__journal_header) + (size_t)TG_JOURNAL_MAX_SLOTS * sizeof(struct tg_journal_slot);
    struct stat facts;
    tg_status status = TG_IO;
    if (fstat(fd, &facts) == 0) {
        status = TG_CORRUPT;
        if (S_ISREG(facts.st_mode) && facts.st_size > 0 && (uint64_t)facts.st_size <= largest) {
            void *map = mmap(NULL, (size_t)facts.st_size, PROT_READ, MAP_SHARED, fd, 0);
            status = map == MAP_FAILED ? TG_IO : parse(map, (size_t)facts.st_size, entry, ctx, info);
            if (map != MAP_FAILED) {
                munmap(map, (size_t)facts.st_size);
            }
        }
    }
    close(fd);
    return status;
}
