/* cpool.c - the threads that run C functions.
 *
 * Threads:  each owns its stretch, its tallies and its ticker; nothing is shared between them but the core.
 * Locks:    core->mutex to claim and to finish, never while a function runs. `stop` and `threads` are used under it; one
 *           thread at a time may grow the pool.
 * Fork:     a child has none of the threads; tg_cpool_destroy answers TG_FORKED there and leaves everything alone.
 */
#include "internal.h"
#include "streak.h"

#include <signal.h>

struct worker {
    struct tg_cpool *pool;
    struct worker *next;
    pthread_t thread;
    struct tg__tallies *tallies;
    struct tg_run ticker; /* for tg_run_now */
    _Atomic uint64_t due_ns; /* when the element that runs is past its hard timeout; 0: never. relaxed: read to look again */
};

struct tg_cpool {
    struct tg_core *core;
    uint32_t threads; /* among whom work is shared out: counted before they start. core->mutex */
    uint32_t started; /* by the one thread that makes the pool and lets it grow */
    bool stop, stopped; /* stopped: all are joined; only the thread that stops it looks */
    /* The newest first. release when one is added, acquire in tg_cpool_due, which takes no lock; they leave with the pool. */
    struct worker *_Atomic workers;
};

/* Times of one stretch on their way into the tallies, which another stretch finds empty again. */
struct times {
    struct tg__tally running, queued;
    struct tg__streak queue;
};

static struct times times_of(struct tg__tallies *tallies)
{
    return (struct times){.running = {.min = UINT64_MAX},
                          .queued = {.min = UINT64_MAX},
                          .queue = {.histogram = &tallies->queued}};
}

static inline void note_running(struct tg__tallies *tallies, struct times *times, uint64_t value)
{
    tg__tally_add(&times->running, value);
    tallies->running.buckets[tg_histogram_index(value)]++;
}

static inline void note_queued(struct times *times, uint64_t value)
{
    tg__tally_add(&times->queued, value);
    tg__streak_add(&times->queue, value);
}

/* Without the saturation of tg_histogram_record: a stretch cannot last 584 years. */
static void put_sums(struct tg_histogram *histogram, const struct tg__tally *tally)
{
    histogram->count += tally->count;
    histogram->sum += tally->sum;
    histogram->min = tally->min < histogram->min ? tally->min : histogram->min;
    histogram->max = tally->max > histogram->max ? tally->max : histogram->max;
}

static void put_times(struct tg__tallies *tallies, const struct times *times, uint64_t first_start_ns, uint64_t last_end_ns)
{
    tg__streak_end(&times->queue);
    put_sums(&tallies->running, &times->running);
    put_sums(&tallies->queued, &times->queued);
    tallies->first_start_ns = first_start_ns;
    tallies->last_end_ns = last_end_ns;
}

static inline void starts(struct worker *worker, const struct tg_ccall *spec, uint64_t start_ns)
{
    if (spec->hard_ns != 0) {
        atomic_store_explicit(&worker->due_ns, start_ns + spec->hard_ns, memory_order_relaxed);
    }
}

/* An element ended: in time and without failure, or its record will be made from what is noted here. */
static inline void ends(struct tg__tallies *tallies, struct times *times, const struct tg__stretch *stretch, size_t i,
                        uint64_t start, uint64_t end, int status)
{
    const struct tg__call *call = stretch->call;
    uint64_t earliest = call->submit_ns + stretch->limited_ns;
    note_running(tallies, times, end - start);
    bool late = stretch->timeout_ns != 0 && end - start > stretch->timeout_ns;
    if (status != 0 || late) {
        tallies->failures[tallies->n_failures++] = (struct tg__failure){i, start, end, status, late};
        return;
    }
    note_queued(times, start > earliest ? start - earliest : 0);
    if (call->spec.ends != NULL) {
        uint64_t waited = start > call->submit_ns ? start - call->submit_ns : 0;
        call->spec.ends[i] = (struct tg_ccall_end){end - start, waited, 1, TG_OUTCOME_SUCCEEDED, 0};
    }
}

static void run_doubles(struct worker *worker, struct tg__stretch *stretch)
{
    const struct tg_ccall *spec = &stretch->call->spec;
    struct tg__tallies *tallies = worker->tallies;
    struct times times = times_of(tallies);
    double (*const function)(double) = spec->double_function;
    const double *in = spec->in_doubles;
    double *out = spec->out_doubles;
    uint64_t first_start = tg_run_now(&worker->ticker), start = first_start;
    if (spec->statuses != NULL) {
        memset(&spec->statuses[stretch->first], 0, stretch->n * sizeof spec->statuses[0]);
    }
    for (size_t i = stretch->first, until = i + stretch->n; i < until; i++) {
        starts(worker, spec, start);
        out[i] = function(in[i]);
        uint64_t end = tg_run_now(&worker->ticker);
        ends(tallies, &times, stretch, i, start, end, 0);
        start = end;
    }
    put_times(tallies, &times, first_start, start);
}

static int call_bytes(const struct tg_ccall *spec, size_t element)
{
    size_t from = spec->in_offsets[element], to = spec->in_offsets[element + 1];
    spec->out_lens[element] = 0;
    int status = spec->bytes_function(spec->in + from, to - from, spec->out + element * spec->out_stride,
                                      spec->out_stride, &spec->out_lens[element]);
    if (spec->statuses != NULL) {
        spec->statuses[element] = status;
    }
    return status;
}

static void run_bytes(struct worker *worker, struct tg__stretch *stretch)
{
    const struct tg_ccall *spec = &stretch->call->spec;
    struct tg__tallies *tallies = worker->tallies;
    struct times times = times_of(tallies);
    uint64_t earliest = stretch->call->submit_ns + stretch->limited_ns;
    uint64_t first_start = tg_run_now(&worker->ticker), start = first_start;
    for (size_t i = stretch->first; i < stretch->first + stretch->n; i++) {
        start = start > earliest ? start : earliest;
        starts(worker, spec, start);
        int status = call_bytes(spec, i);
        uint64_t end = tg_run_now(&worker->ticker);
        end = end > start ? end : start;
        ends(tallies, &times, stretch, i, start, end, status);
        start = end;
    }
    put_times(tallies, &times, first_start, start);
}

/* An element that is tried again. */
static void run_item(struct worker *worker, struct tg__stretch *stretch)
{
    const struct tg_ccall *spec = &stretch->call->spec;
    struct tg_item *item = stretch->item;
    size_t i = (size_t)item->position;
    uint64_t start = item->mark_ns;
    int status = 0;
    starts(worker, spec, start);
    if (spec->double_function != NULL) {
        spec->out_doubles[i] = spec->double_function(spec->in_doubles[i]);
    } else {
        status = call_bytes(spec, i);
    }
    uint64_t end = tg_run_now(&worker->ticker);
    bool late = stretch->timeout_ns != 0 && end > start + stretch->timeout_ns;
    enum tg_verdict verdict = late         ? TG_VERDICT_TIMED_OUT
                              : status == 0 ? TG_VERDICT_OK
                              : status > 0  ? TG_VERDICT_FAIL_RETRYABLE
                                            : TG_VERDICT_FAIL_FINAL;
    tg_item_end(item, verdict, 0, end);
}

static void run_stretch(struct worker *worker, struct tg__stretch *stretch)
{
    if (stretch->item != NULL) {
        run_item(worker, stretch);
    } else if (stretch->call->spec.double_function != NULL) {
        run_doubles(worker, stretch);
    } else {
        run_bytes(worker, stretch);
    }
}

/* Returns false when the pool stops. The lock is held before and after. */
static bool next_stretch(struct tg_cpool *pool, struct tg__stretch *stretch)
{
    struct tg_core *core = pool->core;
    unsigned kind = tg__kind_index(TG_KIND_C);
    while (!pool->stop) {
        if (tg__stretch_claim(core, pool->threads, tg__now(core, 0), stretch)) {
            return true;
        }
        core->waiting_threads[kind]++;
        tg_status status = tg__wait_locked(core, TG_KIND_C, TG_NEVER, true);
        core->waiting_threads[kind]--;
        if (status == TG_CLOSED) {
            return false;
        }
    }
    return false;
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    struct tg_core *core = worker->pool->core;
    struct tg__stretch stretch;
    if (tg__lock(core) != TG_OK) {
        return NULL;
    }
    while (next_stretch(worker->pool, &stretch)) {
        uint64_t mult = core->tsc_mult;
        tg__unlock(core);
        worker->ticker.tsc_mult = mult;
        run_stretch(worker, &stretch);
        atomic_store_explicit(&worker->due_ns, 0, memory_order_relaxed);
        uint64_t end = tg_run_now(&worker->ticker);
        tg__lock(core);
        tg__stretch_finish(core, &stretch, worker->tallies, tg__now(core, end));
    }
    tg__unlock(core);
    return NULL;
}

static void free_worker(struct tg_core *core, struct worker *worker)
{
    if (worker->tallies != NULL) {
        core->allocator.release(core->allocator.ctx, worker->tallies, sizeof *worker->tallies);
    }
    core->allocator.release(core->allocator.ctx, worker, sizeof *worker);
}

static bool start_worker(struct tg_cpool *pool)
{
    struct tg_core *core = pool->core;
    struct worker *worker = core->allocator.allocate(core->allocator.ctx, sizeof *worker);
    if (worker == NULL) {
        return false;
    }
    memset(worker, 0, sizeof *worker);
    worker->pool = pool;
    worker->next = atomic_load_explicit(&pool->workers, memory_order_relaxed);
    worker->ticker.clock = &core->clock;
    worker->ticker.anchor_tsc = (uint64_t)1 << 63; /* no anchor yet */
    worker->tallies = core->allocator.allocate(core->allocator.ctx, sizeof *worker->tallies);
    if (worker->tallies == NULL) {
        free_worker(core, worker);
        return false;
    }
    tg_histogram_init(&worker->tallies->running);
    tg_histogram_init(&worker->tallies->queued);
    worker->tallies->n_failures = 0;
    if (pthread_create(&worker->thread, NULL, work, worker) != 0) {
        free_worker(core, worker);
        return false;
    }
    atomic_store_explicit(&pool->workers, worker, memory_order_release);
    return true;
}

tg_status tg_cpool_grow(struct tg_cpool *pool, uint32_t threads)
{
    struct tg_core *core = pool->core;
    if (threads == 0 || threads > 4096) {
        return TG_INVALID;
    }
    tg_status status = tg_core_check(core);
    if (status != TG_OK) {
        return status;
    }
    if ((status = tg__lock(core)) != TG_OK) {
        return status;
    }
    pool->threads = threads > pool->threads ? threads : pool->threads;
    tg__unlock(core);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals belong to the threads of the application */
    while (pool->started < threads && start_worker(pool)) {
        pool->started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pool->started >= threads) {
        return TG_OK;
    }
    if (tg__lock(core) == TG_OK) {
        pool->threads = pool->started;
        tg__unlock(core);
    }
    return TG_SYSTEM;
}

tg_status tg_cpool_create(struct tg_core *core, uint32_t threads, struct tg_cpool **out)
{
    if (threads == 0 || threads > 4096) {
        return TG_INVALID;
    }
    struct tg_cpool *pool = core->allocator.allocate(core->allocator.ctx, sizeof *pool);
    if (pool == NULL) {
        return TG_NOMEM;
    }
    memset(pool, 0, sizeof *pool);
    pool->core = core;
    tg_status status = tg_cpool_grow(pool, threads);
    if (status != TG_OK) {
        if (tg_cpool_destroy(pool) != TG_OK) {
            core->allocator.release(core->allocator.ctx, pool, sizeof *pool); /* forked: no thread was started */
        }
        return status;
    }
    *out = pool;
    return TG_OK;
}

uint64_t tg_cpool_due(struct tg_cpool *pool)
{
    uint64_t due_ns = TG_NEVER;
    struct worker *worker = atomic_load_explicit(&pool->workers, memory_order_acquire);
    for (; worker != NULL; worker = worker->next) {
        uint64_t due = atomic_load_explicit(&worker->due_ns, memory_order_relaxed);
        due_ns = due != 0 && due < due_ns ? due : due_ns;
    }
    return due_ns;
}

tg_status tg_cpool_stop(struct tg_cpool *pool)
{
    struct tg_core *core = pool->core;
    tg_status status = tg__lock(core);
    if (status != TG_OK) {
        return status;
    }
    if (pool->stopped) {
        tg__unlock(core);
        return TG_OK;
    }
    pool->stop = true;
    core->wakes++;
    core->to_broadcast = true;
    tg__unlock(core);
    struct worker *worker = atomic_load_explicit(&pool->workers, memory_order_relaxed);
    for (; worker != NULL; worker = worker->next) { /* their records stay: tg_cpool_due may be reading them */
        pthread_join(worker->thread, NULL);
    }
    pool->stopped = true;
    return TG_OK;
}

tg_status tg_cpool_destroy(struct tg_cpool *pool)
{
    struct tg_core *core = pool->core;
    tg_status status = tg_cpool_stop(pool);
    if (status != TG_OK) {
        return status;
    }
    struct worker *worker = atomic_load_explicit(&pool->workers, memory_order_relaxed), *next;
    for (; worker != NULL; worker = next) {
        next = worker->next;
        free_worker(core, worker);
    }
    core->allocator.release(core->allocator.ctx, pool, sizeof *pool);
    return TG_OK;
}
