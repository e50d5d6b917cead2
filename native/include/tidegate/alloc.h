/* alloc.h - the allocator a core uses; replaceable, so that a test can fail every allocation in turn. */
#ifndef TIDEGATE_ALLOC_H
#define TIDEGATE_ALLOC_H

#include <stddef.h>

struct tg_allocator {
    /* Returns `size` bytes aligned to 16, or NULL. */
    void *(*allocate)(void *ctx, size_t size);
    /* `size` is what was asked for. `memory` may be NULL. */
    void (*release)(void *ctx, void *memory, size_t size);
    void *ctx;
};

/* malloc and free. */
extern const struct tg_allocator tg_allocator_system;

#endif
