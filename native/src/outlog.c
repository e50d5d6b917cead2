/* outlog.c - writing an outcome log. The format is in outlog_format.h and README.md.
 *
 * A record is written behind the last one and then counted in, with one store: a process that dies in between has left
 * no record. Chunks that go back to the pool are emptied first and named anew when they go out again.
 */
#include "outlog_format.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static int open_file(const char *path, size_t size)
{
    unlink(path); /* a reader may have the old one mapped */
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return -1;
    }
    /* Reserved, so that a full disk is an error now and not a SIGBUS later. */
    if (posix_fallocate(fd, 0, (off_t)size) != 0) {
        close(fd);
        unlink(path);
        return -1;
    }
    return fd;
}

static struct tg_outlog_chunk *chunk_at(const struct tg_outlog *log, uint32_t index)
{
    return (struct tg_outlog_chunk *)(void *)(log->map + TG__OUTLOG_HEADER + (size_t)index * TG_OUTLOG_CHUNK);
}

static void write_header(struct tg_outlog *log)
{
    struct tg__outlog_header header = {
        .version = TG_OUTLOG_VERSION,
        .header_size = TG__OUTLOG_HEADER,
        .chunk_size = TG_OUTLOG_CHUNK,
        .n_chunks = log->n_chunks,
        .byte_order = TG__OUTLOG_BYTE_ORDER,
        .pid = (uint64_t)getpid(),
    };
    memcpy(log->map, &header, sizeof header);
    /* The magic comes last: a file without it was never a log. */
    memcpy(log->map, TG__OUTLOG_MAGIC, 8);
}

tg_status tg_outlog_create(const char *path, uint32_t chunks, struct tg_outlog **out)
{
    if (chunks == 0 || chunks > TG_OUTLOG_MAX_CHUNKS) {
        return TG_INVALID;
    }
    struct tg_outlog *log = calloc(1, sizeof *log);
    if (log == NULL) {
        return TG_NOMEM;
    }
    tg_status status = TG_NOMEM;
    log->n_chunks = chunks;
    log->next = malloc(chunks * sizeof *log->next);
    if (log->next == NULL) {
        goto fail_log;
    }
    for (uint32_t i = 0; i < chunks; i++) {
        log->next[i] = i + 1 < chunks ? i + 1 : TG_OUTLOG_NONE;
    }
    status = TG_IO;
    log->map_size = TG__OUTLOG_HEADER + (size_t)chunks * TG_OUTLOG_CHUNK;
    log->fd = open_file(path, log->map_size);
    if (log->fd < 0) {
        goto fail_next;
    }
    log->map = mmap(NULL, log->map_size, PROT_READ | PROT_WRITE, MAP_SHARED, log->fd, 0);
    if (log->map == MAP_FAILED) {
        goto fail_file;
    }
    write_header(log);
    *out = log;
    return TG_OK;

fail_file:
    close(log->fd);
    unlink(path);
fail_next:
    free(log->next);
fail_log:
    free(log);
    return status;
}

void tg_outlog_destroy(struct tg_outlog *log)
{
    if (log == NULL) {
        return;
    }
    munmap(log->map, log->map_size);
    close(log->fd);
    free(log->next);
    free(log);
}

void tg_outlog_part_init(struct tg_outlog_part *part, const unsigned char token[16])
{
    memcpy(part->token, token, sizeof part->token);
    part->head = part->tail = part->sent_head = part->sent_tail = TG_OUTLOG_NONE;
}

static int take_chunk(struct tg_outlog *log, struct tg_outlog_part *part)
{
    uint32_t index = log->first_free;
    if (index == TG_OUTLOG_NONE) {
        return -1;
    }
    log->first_free = log->next[index];
    log->next[index] = TG_OUTLOG_NONE;
    memcpy(chunk_at(log, index)->token, part->token, sizeof part->token);
    if (part->tail == TG_OUTLOG_NONE) {
        part->head = index;
    } else {
        log->next[part->tail] = index;
    }
    part->tail = index;
    return 0;
}

static void count_unwritten(struct tg_outlog *log)
{
    struct tg__outlog_header *header = (struct tg__outlog_header *)(void *)log->map;
    uint64_t before = atomic_load_explicit(&header->unwritten, memory_order_relaxed);
    atomic_store_explicit(&header->unwritten, before + 1, memory_order_relaxed);
}

unsigned char *tg_outlog_reserve(struct tg_outlog *log, struct tg_outlog_part *part, size_t n)
{
    size_t size = sizeof(struct tg__outlog_record) + tg__outlog_padded(n);
    if (n > TG__OUTLOG_ROOM || size > TG__OUTLOG_ROOM) {
        count_unwritten(log);
        return NULL;
    }
    uint64_t used = 0;
    if (part->tail != TG_OUTLOG_NONE) {
        used = atomic_load_explicit(&chunk_at(log, part->tail)->used, memory_order_relaxed);
    }
    if (part->tail == TG_OUTLOG_NONE || size > TG__OUTLOG_ROOM - used) {
        if (take_chunk(log, part) < 0) {
            count_unwritten(log);
            return NULL;
        }
        used = 0;
    }
    return (unsigned char *)(chunk_at(log, part->tail) + 1) + used + sizeof(struct tg__outlog_record);
}

void tg_outlog_commit(struct tg_outlog *log, struct tg_outlog_part *part, uint32_t position, unsigned kind,
                      uint32_t attempts, size_t n)
{
    struct tg_outlog_chunk *chunk = chunk_at(log, part->tail);
    uint64_t used = atomic_load_explicit(&chunk->used, memory_order_relaxed);
    unsigned char *at = (unsigned char *)(chunk + 1) + used;
    struct tg__outlog_record record = {
        .position = position, .attempts = attempts, .kind_and_size = (uint32_t)n << 8 | (kind & 0xFF)};
    record.check = tg__outlog_check(part->token, &record, at + sizeof record, n);
    memcpy(at, &record, sizeof record);
    /* release: the record is whole before it counts. Whoever reads does so after the process has died. */
    atomic_store_explicit(&chunk->used, used + sizeof record + tg__outlog_padded(n), memory_order_release);
}

void tg_outlog_part_sent(struct tg_outlog *log, struct tg_outlog_part *part)
{
    if (part->head == TG_OUTLOG_NONE) {
        return;
    }
    if (part->sent_tail == TG_OUTLOG_NONE) {
        part->sent_head = part->head;
    } else {
        log->next[part->sent_tail] = part->head;
    }
    part->sent_tail = part->tail;
    part->head = part->tail = TG_OUTLOG_NONE;
}

/* The chunk used last goes out first: its pages are in the cache. */
static void free_chain(struct tg_outlog *log, uint32_t head, uint32_t tail)
{
    if (head == TG_OUTLOG_NONE) {
        return;
    }
    for (uint32_t at = head; at != TG_OUTLOG_NONE; at = log->next[at]) {
        /* release: emptied before it may be named anew. */
        atomic_store_explicit(&chunk_at(log, at)->used, 0, memory_order_release);
    }
    log->next[tail] = log->first_free;
    log->first_free = head;
}

void tg_outlog_part_reported(struct tg_outlog *log, struct tg_outlog_part *part)
{
    free_chain(log, part->sent_head, part->sent_tail);
    part->sent_head = part->sent_tail = TG_OUTLOG_NONE;
}

void tg_outlog_part_end(struct tg_outlog *log, struct tg_outlog_part *part)
{
    tg_outlog_part_reported(log, part);
    free_chain(log, part->head, part->tail);
    part->head = part->tail = TG_OUTLOG_NONE;
}
