/* outlog.h - how items ended, in a file that survives the process.
 *
 * An item that has ended and is not reported yet would have to run again if its process died now. Its outcome is therefore
 * also written here: into chunks of a file mapped shared, with plain stores. A part (one per group) fills chunks from a
 * common pool; they go back when what is in them was reported. Format: README.md, "Outcome log format".
 *
 * One thread at a time writes a log and its parts (the binding's writers hold the interpreter's lock). Nothing here locks,
 * allocates or calls the system, except create, destroy and read.
 */
#ifndef TIDEGATE_OUTLOG_H
#define TIDEGATE_OUTLOG_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "tidegate/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TG_OUTLOG_VERSION 1
#define TG_OUTLOG_CHUNK 32768u /* bytes of a chunk, its head included: no record is larger */
#define TG_OUTLOG_MAX_CHUNKS 4096u
#define TG_OUTLOG_NONE UINT32_MAX

/* Flag in a record's kind: the item ended so, but what it returned or raised did not fit. */
#define TG_OUTLOG_LOST 0x80u

struct tg_outlog_chunk;

struct tg_outlog {
    uint32_t n_chunks;
    /* internal */
    uint32_t first_free;
    uint32_t *next; /* chain of each chunk */
    unsigned char *map;
    size_t map_size;
    int fd;
};

/* What one group has in the log. All zero bytes but the indices: start with tg_outlog_part_init. */
struct tg_outlog_part {
    uint64_t token[2];
    uint32_t head, tail;           /* chunks that are being filled */
    uint32_t sent_head, sent_tail; /* chunks whose records are being reported */
};

/* Creates (or replaces) the file, with its blocks reserved and mode 0600. */
tg_status tg_outlog_create(const char *path, uint32_t chunks, struct tg_outlog **out);
/* Unmaps; the file stays. */
void tg_outlog_destroy(struct tg_outlog *log);

void tg_outlog_part_init(struct tg_outlog_part *part, const unsigned char token[16]);
/* Room for a record with `n` bytes, or NULL: it does not fit, or no chunk is free (counted in the file). Fill it and call
 * commit at once, with the same `n` or less: until then there is no record. */
unsigned char *tg_outlog_reserve(struct tg_outlog *log, struct tg_outlog_part *part, size_t n);
void tg_outlog_commit(struct tg_outlog *log, struct tg_outlog_part *part, uint32_t position, unsigned kind,
                      uint32_t attempts, size_t n);
/* What is in the part is being reported: what comes later goes into other chunks. */
void tg_outlog_part_sent(struct tg_outlog *log, struct tg_outlog_part *part);
/* What was being reported was: its chunks are free. */
void tg_outlog_part_reported(struct tg_outlog *log, struct tg_outlog_part *part);
/* Nothing of the part is needed any more. */
void tg_outlog_part_end(struct tg_outlog *log, struct tg_outlog_part *part);

struct tg_outlog_entry {
    unsigned char token[16];
    uint32_t position;
    uint32_t attempts;
    unsigned outcome; /* enum tg_outcome */
    int lost;
    const unsigned char *bytes; /* valid during the call */
    size_t n;
};
struct tg_outlog_info {
    uint32_t version;
    uint32_t n_chunks;
    uint64_t pid;
    uint64_t records;
    uint64_t unwritten; /* outcomes that found no room */
    uint32_t torn;      /* chunks with a record that is not whole; what follows it there is not read */
};

/* Reads the log of a dead process. `entry` is called for every record; nonzero from it stops. `info` and `entry` may be
 * NULL. Any file at all is read safely: TG_IO, TG_NOMEM, TG_CORRUPT or TG_VERSION. */
tg_status tg_outlog_read(const char *path, int (*entry)(void *ctx, const struct tg_outlog_entry *entry), void *ctx,
                         struct tg_outlog_info *info);
/* The same for bytes in memory (what the fuzzer calls). */
tg_status tg_outlog_parse(const void *bytes, size_t size, int (*entry)(void *ctx, const struct tg_outlog_entry *entry),
                          void *ctx, struct tg_outlog_info *info);

#ifdef __cplusplus
}
#endif
#endif
