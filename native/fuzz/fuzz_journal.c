/* fuzz_journal.c - any bytes into the crash journal reader; it may not report more than there are slots. */
#include <stdint.h>
#include <stdlib.h>

#include "tidegate/journal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int count(void *ctx, const struct tg_journal_entry *entry)
{
    uint64_t *n = ctx;
    *n += 1 + (entry->position & 0); /* reads the entry */
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t n = 0;
    struct tg_journal_info info;
    tg_status status = tg_journal_parse(data, size, count, &n, &info);
    if (status != TG_OK && n != 0) {
        abort();
    }
    if (status == TG_OK && (n != info.running || n + info.torn > info.n_slots || 64 + 64 * (uint64_t)info.n_slots != size)) {
        abort();
    }
    return 0;
}
