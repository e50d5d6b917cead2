/* outlog_read.c - reading an outcome log: any bytes at all. No state. */
#include "outlog_format.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

typedef int (*entry_fn)(void *ctx, const struct tg_outlog_entry *entry);

static tg_status check_header(const unsigned char *bytes, size_t size, struct tg__outlog_header *header)
{
    if (size < TG__OUTLOG_HEADER) {
        return TG_CORRUPT;
    }
    memcpy(header, bytes, sizeof *header);
    if (memcmp(header->magic, TG__OUTLOG_MAGIC, sizeof header->magic) != 0) {
        return TG_CORRUPT;
    }
    if (header->version != TG_OUTLOG_VERSION || header->byte_order != TG__OUTLOG_BYTE_ORDER) {
        return TG_VERSION;
    }
    if (header->header_size != TG__OUTLOG_HEADER || header->chunk_size != TG_OUTLOG_CHUNK || header->n_chunks == 0 ||
        header->n_chunks > TG_OUTLOG_MAX_CHUNKS) {
        return TG_CORRUPT;
    }
    return size == TG__OUTLOG_HEADER + (size_t)header->n_chunks * TG_OUTLOG_CHUNK ? TG_OK : TG_CORRUPT;
}

/* The record at `at`; bytes it takes, 0 when it is not whole. */
static size_t read_record(const uint64_t token[2], const unsigned char *at, size_t left, struct tg_outlog_entry *entry)
{
    struct tg__outlog_record record;
    if (left < sizeof record) {
        return 0;
    }
    memcpy(&record, at, sizeof record);
    size_t n = record.kind_and_size >> 8;
    if (n > left - sizeof record || tg__outlog_padded(n) > left - sizeof record) {
        return 0;
    }
    const unsigned char *bytes = at + sizeof record;
    if (tg__outlog_check(token, &record, bytes, n) != record.check) {
        return 0;
    }
    memcpy(entry->token, token, sizeof entry->token);
    entry->position = record.position;
    entry->attempts = record.attempts;
    entry->outcome = record.kind_and_size & (0xFF & ~TG_OUTLOG_LOST);
    entry->lost = (record.kind_and_size & TG_OUTLOG_LOST) != 0;
    entry->bytes = bytes;
    entry->n = n;
    return sizeof record + tg__outlog_padded(n);
}

/* Nonzero: the caller has seen enough. */
static int read_chunk(const unsigned char *chunk, entry_fn entry, void *ctx, struct tg_outlog_info *info)
{
    uint64_t token[2], used;
    memcpy(token, chunk + offsetof(struct tg_outlog_chunk, token), sizeof token);
    memcpy(&used, chunk + offsetof(struct tg_outlog_chunk, used), sizeof used);
    if (used > TG__OUTLOG_ROOM) {
        info->torn++;
        return 0;
    }
    const unsigned char *at = chunk + sizeof(struct tg_outlog_chunk);
    while (used != 0) {
        struct tg_outlog_entry found;
        size_t size = read_record(token, at, (size_t)used, &found);
        if (size == 0) {
            info->torn++;
            return 0;
        }
        info->records++;
        if (entry != NULL && entry(ctx, &found) != 0) {
            return 1;
        }
        at += size;
        used -= size;
    }
    return 0;
}

tg_status tg_outlog_parse(const void *bytes, size_t size, entry_fn entry, void *ctx, struct tg_outlog_info *info)
{
    struct tg__outlog_header header;
    struct tg_outlog_info found = {0};
    tg_status status = check_header(bytes, size, &header);
    if (status == TG_OK) {
        found.version = header.version;
        found.n_chunks = header.n_chunks;
        found.pid = header.pid;
        found.unwritten = header.unwritten;
        const unsigned char *chunk = (const unsigned char *)bytes + TG__OUTLOG_HEADER;
        for (uint32_t i = 0; i < header.n_chunks; i++, chunk += TG_OUTLOG_CHUNK) {
            if (read_chunk(chunk, entry, ctx, &found) != 0) {
                break;
            }
        }
    }
    if (info != NULL) {
        *info = found;
    }
    return status;
}

static tg_status read_whole(int fd, unsigned char *bytes, size_t size)
{
    size_t at = 0;
    while (at < size) {
        ssize_t n = read(fd, bytes + at, size - at);
        if (n <= 0) {
            return n < 0 ? TG_IO : TG_CORRUPT; /* it shrank meanwhile */
        }
        at += (size_t)n;
    }
    return TG_OK;
}

tg_status tg_outlog_read(const char *path, entry_fn entry, void *ctx, struct tg_outlog_info *info)
{
    if (info != NULL) {
        memset(info, 0, sizeof *info);
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        return TG_IO;
    }
    const size_t largest = TG__OUTLOG_HEADER + (size_t)TG_OUTLOG_MAX_CHUNKS * TG_OUTLOG_CHUNK;
    struct stat facts;
    tg_status status = TG_IO;
    if (fstat(fd, &facts) == 0) {
        status = TG_CORRUPT;
        if (S_ISREG(facts.st_mode) && facts.st_size > 0 && (uint64_t)facts.st_size <= largest) {
            size_t size = (size_t)facts.st_size;
            unsigned char *bytes = malloc(size);
            status = bytes == NULL ? TG_NOMEM : read_whole(fd, bytes, size);
            if (status == TG_OK) {
                status = tg_outlog_parse(bytes, size, entry, ctx, info);
            }
            free(bytes);
        }
    }
    close(fd);
    return status;
}
