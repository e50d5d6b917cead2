/* submit.c - taking items in: as many as there is room for, under one lock. Guarded by core->mutex. */
#include "internal.h"

static uint64_t room_in(const struct tg_lane *lane)
{
    if (lane->capacity == 0) {
        return UINT64_MAX;
    }
    return lane->capacity > lane->inside ? lane->capacity - lane->inside : 0;
}

static bool set_keys(struct tg_core *core, struct tg_item *item, const uint64_t *keys, uint32_t n_keys)
{
    item->key = 0;
    if (n_keys == 1) {
        item->key = keys[0];
    } else if (n_keys > 1) {
        uint64_t *copy = core->allocator.allocate(core->allocator.ctx, n_keys * sizeof *copy);
        if (copy == NULL) {
            return false;
        }
        memcpy(copy, keys, n_keys * sizeof *copy);
        item->keys = copy;
        item->flags |= TG__ITEM_KEYS;
    }
    return true;
}

/* Every field is written: records are reused uncleared. */
static struct tg_item *new_item(struct tg_core *core, struct tg_group *group, void *payload, const uint64_t *keys,
                                uint64_t position, uint64_t now_ns)
{
    struct tg_item *item = tg__item_allocate(core);
    if (item == NULL) {
        return NULL;
    }
    item->payload = payload;
    item->group = group;
    item->position = position;
    item->submit_ns = item->mark_ns = now_ns;
    item->queued_ns = item->limited_ns = item->backoff_ns = item->running_ns = 0;
    item->due_ns = item->delay_ns = 0;
    item->heap_index = TG__OFF_HEAP;
    item->attempts = 0;
    item->state = TG_ITEM_READY;
    item->verdict = item->outcome = item->reason = item->flags = item->limits_held = 0;
    item->note = 0;
    if (!set_keys(core, item, keys, group->lane->n_keyed)) {
        tg__item_free(core, item);
        return NULL;
    }
    return item;
}

static tg_status check(const struct tg_core *core, const struct tg_group *group, const uint64_t *keys)
{
    if (core->closed || group->cancelled || group->drained || group->announced) {
        return TG_CLOSED;
    }
    if (group->core != core || group->lane->kind == TG_KIND_C || (keys == NULL && group->lane->n_keyed != 0)) {
        return TG_INVALID;
    }
    return TG_OK;
}

static tg_status submit_locked(struct tg_core *core, struct tg_group *group, size_t n, void *const *payloads,
                               const uint64_t *keys, uint64_t first_position, uint64_t now_ns, size_t *accepted)
{
    tg_status status = check(core, group, keys);
    if (status != TG_OK) {
        return status;
    }
    struct tg_lane *lane = group->lane;
    uint64_t room = room_in(lane);
    size_t wanted = n < room ? n : (size_t)room;
    uint64_t limited = tg__lane_limited(lane, now_ns);
    size_t i = 0, alike = payloads == NULL && lane->n_keyed == 0 ? wanted : 1;
    for (; i < wanted; i += alike) {
        struct tg_item *item = new_item(core, group, payloads != NULL ? payloads[i] : NULL,
                                        keys != NULL ? keys + i * lane->n_keyed : NULL, first_position + i, now_ns);
        if (item == NULL) {
            status = TG_NOMEM;
            break;
        }
        item->due_ns = limited;
        if (alike > 1) {
            item->flags |= TG__ITEM_ROW;
            item->behind = alike - 1;
        }
        tg__list_append(&lane->ready, &item->link);
    }
    *accepted = i;
    lane->used = true;
    lane->n_ready += i;
    lane->inside += i;
    lane->stats.submitted += i;
    group->stats.total += i;
    if (status == TG_OK && i < n) {
        lane->stats.refused_full += n - i;
        status = TG_FULL;
    }
    if (i != 0 && lane->retry.deadline_ns != 0) {
        tg__deadline_arm(lane, now_ns + lane->retry.deadline_ns);
    }
    tg__lane_refresh(lane);
    return status;
}

tg_status tg_core_submit(struct tg_core *core, struct tg_group *group, size_t n, void *const *payloads,
                         const uint64_t *keys, uint64_t first_position, uint64_t now_ns, size_t *accepted)
{
    *accepted = 0;
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    status = submit_locked(core, group, n, payloads, keys, first_position, tg__now(core, now_ns), accepted);
    tg__unlock(core);
    return status;
}

uint64_t tg_core_room(struct tg_core *core, struct tg_lane *lane)
{
    if (tg__lock(core) != TG_OK) {
        return 0;
    }
    uint64_t room = core->closed ? 0 : room_in(lane);
    tg__unlock(core);
    return room;
}
