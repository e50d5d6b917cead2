/* outlog_format.h - the layout of an outcome log. Native byte order; README.md has the tables. */
#ifndef TIDEGATE_OUTLOG_FORMAT_H
#define TIDEGATE_OUTLOG_FORMAT_H

#include <string.h>

#include "tidegate/outlog.h"

#define TG__OUTLOG_MAGIC "TGOUTC\r\n"
#define TG__OUTLOG_BYTE_ORDER 0x01020304u
#define TG__OUTLOG_HEADER 4096u

struct tg__outlog_header {
    char magic[8];
    uint32_t version;
    uint32_t header_size;
    uint32_t chunk_size;
    uint32_t n_chunks;
    uint32_t byte_order;
    uint32_t reserved;
    uint64_t pid;
    _Atomic uint64_t unwritten;
};

/* `used`: bytes of records that are whole, counted from the end of this head. Written last. */
struct tg_outlog_chunk {
    uint64_t token[2];
    _Atomic uint64_t used;
    uint64_t reserved[5];
};

struct tg__outlog_record {
    uint32_t position;
    uint32_t attempts;
    uint32_t kind_and_size; /* low 8 bits: kind; above: bytes that follow */
    uint32_t check;
};

#define TG__OUTLOG_ROOM (TG_OUTLOG_CHUNK - sizeof(struct tg_outlog_chunk))

_Static_assert(sizeof(struct tg__outlog_header) <= TG__OUTLOG_HEADER, "the header has a page");
_Static_assert(sizeof(struct tg_outlog_chunk) == 64, "records begin on a cache line");
_Static_assert(sizeof(struct tg__outlog_record) == 16, "a record begins with sixteen bytes");

static inline size_t tg__outlog_padded(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

/* Of the record, its bytes and whose it is, so that neither stray writes nor what a chunk held before pass for a record. */
static inline uint32_t tg__outlog_check(const uint64_t token[2], const struct tg__outlog_record *record,
                                        const unsigned char *bytes, size_t n)
{
    const uint64_t prime = 0x9E3779B97F4A7C15u;
    uint64_t head = (uint64_t)record->position << 32 | record->attempts;
    uint64_t hash = (token[0] ^ head) * prime;
    hash = (hash ^ (hash >> 29) ^ token[1] ^ record->kind_and_size) * prime;
    for (; n >= 8; bytes += 8, n -= 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        hash = (hash ^ (hash >> 29) ^ word) * prime;
    }
    if (n != 0) {
        uint64_t word = 0;
        memcpy(&word, bytes, n);
        hash = (hash ^ (hash >> 29) ^ word) * prime;
    }
    return (uint32_t)(hash >> 32);
}

#endif
