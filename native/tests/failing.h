/* failing.h - an allocator that fails when the test says so, and knows what is held. */
#ifndef TIDEGATE_FAILING_H
#define TIDEGATE_FAILING_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "tidegate/tidegate.h"

struct failing {
    struct tg_allocator allocator;
    uint64_t calls;   /* so far */
    uint64_t fail_at; /* this call fails (1 is the first); 0: none */
    bool fail_after;  /* and every later one */
    int64_t bytes;    /* held */
};

static inline void *failing_allocate(void *ctx, size_t size)
{
    struct failing *failing = ctx;
    failing->calls++;
    if (failing->calls == failing->fail_at || (failing->fail_after && failing->calls > failing->fail_at)) {
        return NULL;
    }
    failing->bytes += (int64_t)size;
    return malloc(size);
}

static inline void failing_release(void *ctx, void *memory, size_t size)
{
    struct failing *failing = ctx;
    if (memory != NULL) {
        failing->bytes -= (int64_t)size;
    }
    free(memory);
}

static inline void start_failing(struct failing *failing)
{
    *failing = (struct failing){.allocator = {failing_allocate, failing_release, failing}};
}

#endif
