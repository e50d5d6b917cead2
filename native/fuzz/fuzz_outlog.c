/* fuzz_outlog.c - any bytes into the reader of outcome logs: as a whole file, and as the chunk of a file whose head is good.
 * What is reported lies inside the bytes and does not add up to more than there are. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "outlog_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    uint64_t n;
    uint64_t bytes;
    uint8_t last;
};

static int count(void *ctx, const struct tg_outlog_entry *entry)
{
    struct seen *seen = ctx;
    seen->n++;
    seen->bytes += sizeof(struct tg__outlog_record) + entry->n;
    for (size_t i = 0; i < entry->n; i++) {
        seen->last ^= entry->bytes[i]; /* reads every byte */
    }
    return 0;
}

static void parse(const uint8_t *data, size_t size)
{
    struct seen seen = {0};
    struct tg_outlog_info info;
    tg_status status = tg_outlog_parse(data, size, count, &seen, &info);
    if ((status != TG_OK && seen.n != 0) || (status == TG_OK && seen.n != info.records) || seen.bytes > size ||
        (status == TG_OK && info.torn > info.n_chunks)) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct tg__outlog_header header = {
        .magic = TG__OUTLOG_MAGIC, .version = TG_OUTLOG_VERSION, .header_size = TG__OUTLOG_HEADER,
        .chunk_size = TG_OUTLOG_CHUNK, .n_chunks = 1, .byte_order = TG__OUTLOG_BYTE_ORDER};
    const size_t whole = TG__OUTLOG_HEADER + TG_OUTLOG_CHUNK;
    parse(data, size);
    uint8_t *file = calloc(1, whole); /* exactly as large, so that a sanitizer sees one byte too far */
    if (file == NULL) {
        return 0;
    }
    memcpy(file, &header, sizeof header);
    memcpy(file + TG__OUTLOG_HEADER, data, size < TG_OUTLOG_CHUNK ? size : TG_OUTLOG_CHUNK);
    parse(file, whole);
    free(file);
    return 0;
}
