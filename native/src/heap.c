/* heap.c - 4-ary heap of timers: by time, then by order of arrival. Guarded by core->mutex.
 *
 * Entries hold the key, so that sifting touches the owners only to tell them their index. Room for the timers of gates
 * and lanes is reserved when those are made; only an item's push can fail, and decide.c then keeps the item on a list.
 */
#include "internal.h"

static bool before(const struct tg__heap_entry *a, const struct tg__heap_entry *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->order < b->order;
}

static void place(struct tg__heap *heap, uint32_t index, struct tg__heap_entry entry)
{
    heap->entries[index] = entry;
    *entry.slot = index;
}

static void sift_up(struct tg__heap *heap, uint32_t index, struct tg__heap_entry entry)
{
    while (index > 0) {
        uint32_t parent = (index - 1) / 4;
        if (!before(&entry, &heap->entries[parent])) {
            break;
        }
        place(heap, index, heap->entries[parent]);
        index = parent;
    }
    place(heap, index, entry);
}

static void sift_down(struct tg__heap *heap, uint32_t index, struct tg__heap_entry entry)
{
    for (;;) {
        uint64_t child = (uint64_t)index * 4 + 1;
        if (child >= heap->used) {
            break;
        }
        uint32_t least = (uint32_t)child;
        for (uint32_t i = least + 1; i < child + 4 && i < heap->used; i++) {
            if (before(&heap->entries[i], &heap->entries[least])) {
                least = i;
            }
        }
        if (!before(&heap->entries[least], &entry)) {
            break;
        }
        place(heap, index, heap->entries[least]);
        index = least;
    }
    place(heap, index, entry);
}

static bool grow(struct tg_core *core, uint32_t needed)
{
    struct tg__heap *heap = &core->heap;
    if (needed <= heap->capacity) {
        return true;
    }
    uint32_t capacity = heap->capacity != 0 ? heap->capacity : 64;
    while (capacity < needed) {
        if (capacity > UINT32_MAX / 2) {
            return false;
        }
        capacity *= 2;
    }
    struct tg__heap_entry *entries = core->allocator.allocate(core->allocator.ctx, capacity * sizeof *entries);
    if (entries == NULL) {
        return false;
    }
    if (heap->used != 0) {
        memcpy(entries, heap->entries, heap->used * sizeof *entries);
    }
    tg__release(core, heap->entries, heap->capacity * sizeof *entries);
    heap->entries = entries;
    heap->capacity = capacity;
    return true;
}

bool tg__heap_reserve(struct tg_core *core)
{
    struct tg__heap *heap = &core->heap;
    uint32_t items = heap->used - heap->fixed_used;
    if (!grow(core, items + heap->fixed + 1)) {
        return false;
    }
    heap->fixed++;
    return true;
}

void tg__heap_unreserve(struct tg_core *core)
{
    core->heap.fixed--;
}

bool tg__heap_push(struct tg_core *core, enum tg__timer_kind kind, uint32_t *slot, uint64_t due_ns)
{
    struct tg__heap *heap = &core->heap;
    if (kind == TG__TIMER_ITEM) {
        uint32_t items = heap->used - heap->fixed_used;
        if (!grow(core, items + 1 + heap->fixed)) {
            return false;
        }
    } else {
        heap->fixed_used++;
    }
    struct tg__heap_entry entry = {due_ns, heap->arrivals++ << 2 | (uint64_t)kind, slot};
    sift_up(heap, heap->used++, entry);
    if (*slot == 0) {
        tg__notify_time(core);
    }
    return true;
}

void tg__heap_remove(struct tg_core *core, uint32_t *slot)
{
    struct tg__heap *heap = &core->heap;
    uint32_t index = *slot;
    if (index == TG__OFF_HEAP) {
        return;
    }
    if ((heap->entries[index].order & 3) != TG__TIMER_ITEM) {
        heap->fixed_used--;
    }
    *slot = TG__OFF_HEAP;
    struct tg__heap_entry last = heap->entries[--heap->used];
    if (index == heap->used) {
        return;
    }
    if (index > 0 && before(&last, &heap->entries[(index - 1) / 4])) {
        sift_up(heap, index, last);
    } else {
        sift_down(heap, index, last);
    }
}
