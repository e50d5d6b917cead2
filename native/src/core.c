/* core.c - life of a core; its lock, its time, its timers. */
#include "internal.h"

#include <sys/mman.h>
#include <unistd.h>

#define STRING_OF(x) #x
#define VERSION_TEXT(a, b) STRING_OF(a) "." STRING_OF(b)

const char *tg_version(void)
{
    return VERSION_TEXT(TG_VERSION_MAJOR, TG_VERSION_MINOR);
}

void *tg__allocate(struct tg_core *core, size_t size)
{
    void *memory = core->allocator.allocate(core->allocator.ctx, size);
    if (memory != NULL) {
        memset(memory, 0, size);
    }
    return memory;
}

void tg__release(struct tg_core *core, void *memory, size_t size)
{
    if (memory != NULL) {
        core->allocator.release(core->allocator.ctx, memory, size);
    }
}

/* ---- fork ---- */

/* A page that the kernel empties in every child: one load says "forked", where getpid() is a system call. */
static void watch_fork(struct tg_core *core)
{
    core->pid = getpid();
    core->alive = NULL;
#ifdef MADV_WIPEONFORK
    size_t size = sizeof *core->alive;
    void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        return;
    }
    if (madvise(page, size, MADV_WIPEONFORK) != 0) {
        munmap(page, size);
        return;
    }
    core->alive = page;
    atomic_init(core->alive, 1);
#endif
}

static bool is_forked(const struct tg_core *core)
{
    if (core->alive != NULL) {
        /* relaxed: written once, before any other thread knew the core. */
        return atomic_load_explicit(core->alive, memory_order_relaxed) == 0;
    }
    return core->pid != getpid();
}

/* ---- lock ---- */

tg_status tg__lock(const struct tg_core *core)
{
    if (is_forked(core)) {
        return TG_FORKED;
    }
    pthread_mutex_lock(&((struct tg_core *)core)->mutex);
    return TG_OK;
}

void tg__unlock(struct tg_core *core)
{
    unsigned wake = core->to_wake, signal = core->to_signal;
    bool broadcast = core->to_broadcast, groups = core->to_signal_groups && core->waiting_groups != 0;
    core->to_wake = core->to_signal = 0;
    core->to_broadcast = core->to_signal_groups = false;
    pthread_mutex_unlock(&core->mutex);
    if (broadcast || groups) {
        pthread_cond_broadcast(&core->group_cond);
    }
    for (unsigned kind = 0; (signal != 0 || broadcast) && kind < TG__KINDS; kind++) {
        if (broadcast) {
            pthread_cond_broadcast(&core->conds[kind]);
        } else if (signal & (1u << kind)) {
            pthread_cond_signal(&core->conds[kind]);
        }
    }
    if (wake != 0 && core->wake != NULL) {
        core->wake(core->wake_ctx, wake);
    }
}

/* Work of this kind became available. */
void tg__notify(struct tg_core *core, enum tg_kind kind)
{
    if (core->hungry & (unsigned)kind) {
        core->hungry &= ~(unsigned)kind;
        core->to_wake |= (unsigned)kind;
    }
    if (core->waiting_several != 0) {
        core->to_broadcast = true;
    } else if (core->waiting_threads[tg__kind_index(kind)] != 0) {
        core->to_signal |= (unsigned)kind;
    }
}

/* Whoever sleeps, sleeps until a time that is now too late: one thread of each kind looks again. */
void tg__notify_time(struct tg_core *core)
{
    tg__notify_settled(core);
}

/* Something for take_settled or take_done: any thread will do. Who was told to be hungry is woken too. */
void tg__notify_settled(struct tg_core *core)
{
    core->to_wake |= core->hungry;
    core->hungry = 0;
    for (unsigned kind = 0; kind < TG__KINDS; kind++) {
        if (core->waiting_threads[kind] != 0) {
            core->to_signal |= 1u << kind;
        }
    }
    core->to_broadcast |= core->waiting_several != 0;
}

/* ---- time ---- */

/* The core's time never goes back, whatever threads pass in. */
uint64_t tg__now(struct tg_core *core, uint64_t now_ns)
{
    if (now_ns == 0) {
        now_ns = core->clock.now_ns(core->clock.ctx);
    }
    if (now_ns > core->now_ns) {
        core->now_ns = now_ns;
    }
    return core->now_ns;
}

uint64_t tg_core_now(const struct tg_core *core)
{
    return core->clock.now_ns(core->clock.ctx);
}

static void fire(struct tg_core *core, uint64_t now_ns)
{
    struct tg__heap_entry top = core->heap.entries[0];
    tg__heap_remove(core, top.slot);
    switch ((enum tg__timer_kind)(top.order & 3)) {
    case TG__TIMER_ITEM:
        tg__resume(tg__container(top.slot, struct tg_item, heap_index), now_ns);
        break;
    case TG__TIMER_GATE:
        tg__gate_kick(tg__container(top.slot, struct tg__gate, timer), now_ns);
        break;
    case TG__TIMER_DEADLINE:
        tg__deadline_sweep(tg__container(top.slot, struct tg_lane, deadline_timer), now_ns);
        break;
    }
}

static void resume_overflow(struct tg_core *core, uint64_t now_ns)
{
    struct tg_link *next;
    for (struct tg_link *at = core->overflow.next; at != &core->overflow; at = next) {
        next = at->next;
        struct tg_item *item = tg__container(at, struct tg_item, link);
        if (item->due_ns <= now_ns) {
            tg__list_remove(at);
            core->n_overflow--;
            tg__resume(item, now_ns);
        }
    }
}

void tg__run_timers(struct tg_core *core, uint64_t now_ns)
{
    while (tg__heap_due(&core->heap) <= now_ns) {
        fire(core, now_ns);
    }
    if (core->n_overflow != 0) {
        resume_overflow(core, now_ns);
    }
}

uint64_t tg__next_due(struct tg_core *core)
{
    uint64_t due = tg__heap_due(&core->heap);
    for (struct tg_link *at = core->overflow.next; at != &core->overflow; at = at->next) {
        struct tg_item *item = tg__container(at, struct tg_item, link);
        due = item->due_ns < due ? item->due_ns : due;
    }
    return due;
}

tg_status tg_core_poll(struct tg_core *core, uint64_t now_ns, uint64_t *due_ns)
{
    *due_ns = TG_NEVER;
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    tg__run_timers(core, tg__now(core, now_ns));
    *due_ns = tg__next_due(core);
    tg__unlock(core);
    return TG_OK;
}

uint64_t tg_core_next_due(struct tg_core *core)
{
    if (tg__lock(core) != TG_OK) {
        return TG_NEVER;
    }
    uint64_t due = tg__next_due(core);
    tg__unlock(core);
    return due;
}

/* ---- life ---- */

static void init_lists(struct tg_core *core)
{
    tg__list_init(&core->overflow);
    tg__list_init(&core->lanes);
    tg__list_init(&core->limits);
    tg__list_init(&core->groups);
    tg__list_init(&core->spare_runs);
    tg__list_init(&core->settled);
    tg__list_init(&core->done_groups);
    for (int kind = 0; kind < TG__KINDS; kind++) {
        for (int priority = 0; priority < TG_PRIORITIES; priority++) {
            tg__list_init(&core->active[kind][priority]);
        }
    }
    atomic_init(&core->n_settled, 0);
    atomic_init(&core->n_done, 0);
}

static void destroy_sync(struct tg_core *core, int conds)
{
    while (conds-- > 0) {
        pthread_cond_destroy(conds < TG__KINDS ? &core->conds[conds] : &core->group_cond);
    }
    pthread_mutex_destroy(&core->mutex);
}

static bool init_sync(struct tg_core *core)
{
    pthread_condattr_t attributes;
    if (pthread_mutex_init(&core->mutex, NULL) != 0) {
        return false;
    }
    int made = 0;
    if (pthread_condattr_init(&attributes) == 0) {
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        while (made <= TG__KINDS &&
               pthread_cond_init(made < TG__KINDS ? &core->conds[made] : &core->group_cond, &attributes) == 0) {
            made++;
        }
        pthread_condattr_destroy(&attributes);
    }
    if (made <= TG__KINDS) {
        destroy_sync(core, made);
        return false;
    }
    return true;
}

static void start_clock(struct tg_core *core, const struct tg_core_options *options)
{
    core->clock = options->clock != NULL ? *options->clock : tg_clock_monotonic;
    core->now_ns = core->clock.now_ns(core->clock.ctx);
    core->tsc = !options->no_tsc && core->clock.now_ns == tg_clock_monotonic.now_ns && tg_clock_tsc_usable();
#if defined(__x86_64__)
    if (core->tsc) {
        core->tsc_origin = __rdtsc();
        core->tsc_origin_ns = core->now_ns;
        core->tsc_next_ns = core->now_ns + 1000000;
    }
#endif
}

tg_status tg_core_create(const struct tg_core_options *options, struct tg_core **out)
{
    struct tg_core_options defaults = {0};
    if (options == NULL) {
        options = &defaults;
    }
    struct tg_allocator allocator = options->allocator != NULL ? *options->allocator : tg_allocator_system;
    struct tg_core *core = allocator.allocate(allocator.ctx, sizeof *core);
    if (core == NULL) {
        return TG_NOMEM;
    }
    memset(core, 0, sizeof *core);
    core->allocator = allocator;
    if (!init_sync(core)) {
        allocator.release(allocator.ctx, core, sizeof *core);
        return TG_SYSTEM;
    }
    init_lists(core);
    start_clock(core, options);
    core->wake = options->wake;
    core->wake_ctx = options->wake_ctx;
    core->steal_after_ns = options->steal_after_ns != 0 ? options->steal_after_ns : 200000;
    core->slabs.off = options->no_slabs != 0;
    tg__random_seed(&core->random, options->seed);
    watch_fork(core);
    *out = core;
    return TG_OK;
}

tg_status tg_core_check(const struct tg_core *core)
{
    tg_status status = tg__lock(core);
    if (status == TG_OK) {
        status = core->closed ? TG_CLOSED : TG_OK;
        tg__unlock((struct tg_core *)core);
    }
    return status;
}

static void cut_all_runs(struct tg_lane *lane)
{
    for (struct tg_link *at = lane->runs.next; at != &lane->runs; at = at->next) {
        struct tg_run *run = tg__container(at, struct tg_run, link);
        uint32_t first, n = tg__run_truncate(run, &first);
        tg__run_put_back(run, first, n);
    }
}

tg_status tg_core_close(struct tg_core *core, int cancel)
{
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    core->closed = true;
    core->closed_cancel |= cancel != 0;
    uint64_t now_ns = tg__now(core, 0);
    for (struct tg_link *at = core->lanes.next; cancel && at != &core->lanes; at = at->next) {
        struct tg_lane *lane = tg__container(at, struct tg_lane, link);
        cut_all_runs(lane);
        tg__waiting_remove(lane, tg__visit_all, NULL, TG_OUTCOME_CANCELLED, TG_REASON_CLOSED, now_ns);
        tg__calls_cancel(lane, NULL, TG_OUTCOME_CANCELLED, now_ns);
    }
    core->wakes++;
    core->to_broadcast = true;
    core->to_wake |= TG__ALL_KINDS;
    tg__unlock(core);
    return TG_OK;
}
