/* row.c - one record for many items: those submitted together wait as a row, and get records of their own when they start.
 *
 * A row is the record of its first item, flagged TG__ITEM_ROW; `behind` counts the others, whose positions follow. They are
 * alike in all but their positions (so those with keys or payloads never wait in one), and whatever happens to them in line
 * happens to the record once. Rows are only in a lane's `ready` line or, ended there, in core->settled. So a waiting item costs
 * no memory, and a running one a record that was in use a moment ago. Guarded by core->mutex.
 */
#include "internal.h"

/* The record stands for its next item from now on; the last one is an item like any other. */
static void step(struct tg_item *row)
{
    row->position++;
    if (--row->behind == 0) {
        row->flags &= (uint8_t)~TG__ITEM_ROW;
    }
}

/* A record of its own for the first item of a row, which then begins with the second. NULL: out of memory. */
struct tg_item *tg__row_first(struct tg_core *core, struct tg_item *row)
{
    struct tg_item *item = tg__item_allocate(core);
    if (item != NULL) {
        *item = *row;
        item->flags &= (uint8_t)~TG__ITEM_ROW;
        item->key = 0;
        step(row);
    }
    return item;
}

/* A row that ended without starting settles item by item, in the record that it has: ending needs no memory. Answers
 * whether the record was of a row; then it waits to be settled for the next item. */
bool tg__row_settled(struct tg_core *core, struct tg_item *item)
{
    if (!(item->flags & TG__ITEM_ROW)) {
        return false;
    }
    step(item);
    item->payload = NULL; /* what the binding noted of the item before it */
    item->note = 0;
    tg__list_prepend(&core->settled, &item->link);
    atomic_fetch_add_explicit(&core->n_settled, tg__item_count(item), memory_order_relaxed);
    tg__notify_settled(core);
    return true;
}
