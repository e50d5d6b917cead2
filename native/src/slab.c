/* slab.c - item records from 64 KiB slabs, or one allocation each when slabs are switched off.
 *
 * Guarded by core->mutex. Freed records go to one free list, last in first out, so that a busy core keeps touching the
 * same few; slabs are given back only when no record is live (tg_core_trim, destroy), which needs no counting per slab.
 */
#include "internal.h"

enum { SLAB_BYTES = 64 * 1024, SLAB_ITEMS = (SLAB_BYTES - 64) / sizeof(struct tg_item) };

static struct tg_item *slab_item(struct tg__slab *slab, uint32_t index)
{
    /* 64 bytes in: records stay aligned to half a cache line when malloc aligns to 16. */
    return (struct tg_item *)((char *)slab + 64) + index;
}

static struct tg_item *carve(struct tg_core *core)
{
    struct tg__slabs *slabs = &core->slabs;
    struct tg__slab *slab = slabs->list;
    if (slab == NULL || slab->carved == SLAB_ITEMS) {
        slab = core->allocator.allocate(core->allocator.ctx, SLAB_BYTES);
        if (slab == NULL) {
            return NULL;
        }
        slab->next = slabs->list;
        slab->carved = 0;
        slabs->list = slab;
        slabs->n_slabs++;
        slabs->allocations++;
    }
    return slab_item(slab, slab->carved++);
}

/* The record is not cleared: who asked writes every field. */
struct tg_item *tg__item_allocate(struct tg_core *core)
{
    struct tg__slabs *slabs = &core->slabs;
    struct tg_item *item;
    if (slabs->off) {
        item = core->allocator.allocate(core->allocator.ctx, sizeof *item);
    } else if (slabs->free.next != NULL) {
        item = tg__container(slabs->free.next, struct tg_item, link);
        slabs->free.next = item->link.next;
        slabs->reused++;
    } else {
        item = carve(core);
    }
    if (item == NULL) {
        return NULL;
    }
    slabs->handed_out++;
    if (++slabs->live > slabs->peak) {
        slabs->peak = slabs->live;
    }
    return item;
}

static inline void free_keys(struct tg_core *core, struct tg_item *item)
{
    if (item->flags & TG__ITEM_KEYS) {
        tg__release(core, (void *)item->keys, item->group->lane->n_keyed * sizeof *item->keys);
    }
}

void tg__item_free(struct tg_core *core, struct tg_item *item)
{
    struct tg__slabs *slabs = &core->slabs;
    free_keys(core, item);
    slabs->live--;
    item->state = TG_ITEM_FREE;
    if (slabs->off) {
        tg__release(core, item, sizeof *item);
        return;
    }
    item->link.next = slabs->free.next;
    slabs->free.next = &item->link;
}

/* As one chain. */
void tg__items_free(struct tg_core *core, struct tg_item **items, uint32_t n)
{
    struct tg__slabs *slabs = &core->slabs;
    if (slabs->off) {
        for (uint32_t i = 0; i < n; i++) {
            tg__item_free(core, items[i]);
        }
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        free_keys(core, items[i]);
        items[i]->state = TG_ITEM_FREE;
        items[i]->link.next = i != 0 ? &items[i - 1]->link : slabs->free.next;
    }
    slabs->free.next = &items[n - 1]->link;
    slabs->live -= n;
}

void tg__slabs_destroy(struct tg_core *core)
{
    struct tg__slabs *slabs = &core->slabs;
    while (slabs->list != NULL) {
        struct tg__slab *slab = slabs->list;
        slabs->list = slab->next;
        tg__release(core, slab, SLAB_BYTES);
    }
    slabs->n_slabs = 0;
    slabs->free.next = NULL;
}

uint64_t tg_core_trim(struct tg_core *core)
{
    if (tg__lock(core) != TG_OK) {
        return 0;
    }
    uint64_t freed = 0;
    if (core->slabs.live == 0) {
        freed = core->slabs.n_slabs;
        tg__slabs_destroy(core);
    }
    tg__unlock(core);
    return freed;
}
