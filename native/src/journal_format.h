/* journal_format.h - the head of a crash journal file. Native byte order; README.md has the table. */
#ifndef TIDEGATE_JOURNAL_FORMAT_H
#define TIDEGATE_JOURNAL_FORMAT_H

#include <stdint.h>

#include "tidegate/journal.h"

#define TG__JOURNAL_MAGIC "TGJRNL\r\n"
#define TG__JOURNAL_BYTE_ORDER 0x01020304u

struct tg__journal_header {
    char magic[8];
    uint32_t version;
    uint32_t header_size;
    uint32_t slot_size;
    uint32_t n_slots;
    uint32_t byte_order;
    uint32_t reserved0;
    uint64_t pid;
    uint64_t created_wall_ns;
    uint64_t created_mono_ns;
    uint64_t reserved1;
};

_Static_assert(sizeof(struct tg__journal_header) == 64, "the header is one slot long");
_Static_assert(sizeof(struct tg_journal_slot) == 64, "a slot is one cache line");

#endif
