/* worker.c - the record of one thread that runs items, one nesting level.
 *
 * A thread that waits for a run inside an item helps to run other items; then it has a record for each level, and only the
 * innermost one may be interrupted.
 *
 * Records are made once and used again; they live as long as the core object, so that the watchdog may look at any. */
#include "state.h"

#include <stdlib.h>
#include <time.h>

struct tg_worker *tg_worker_current(struct tg_module_state *state)
{
    return pthread_getspecific(state->worker_key);
}

struct tg_worker *tg_worker_enter(CoreObject *self)
{
    struct tg_worker *outer = tg_worker_current(self->state);
    unsigned long thread_id = PyThread_get_thread_ident();
    pthread_mutex_lock(&self->workers_mu);
    struct tg_worker *worker = NULL, *below = NULL;
    for (struct tg_worker *other = self->workers; other != NULL; other = other->next) {
        if (!other->in_use) {
            worker = worker != NULL ? worker : other;
        } else if (other->on_loop && other->thread_id == thread_id &&
                   atomic_load_explicit(&other->start_ns, memory_order_relaxed) != 0 &&
                   !atomic_load_explicit(&other->inner_active, memory_order_relaxed)) {
            below = other; /* a coroutine waits here, and runs sync items meanwhile; said once, by the first of them */
        }
    }
    if (worker == NULL) {
        worker = calloc(1, sizeof *worker);
        if (worker == NULL) {
            pthread_mutex_unlock(&self->workers_mu);
            PyErr_NoMemory();
            return NULL;
        }
        worker->tag = ++self->next_tag;
        worker->slot = TG_NO_SLOT;
        worker->next = self->workers;
        self->workers = worker;
    }
    worker->in_use = 1;
    worker->core = self;
    worker->thread_id = thread_id;
    pthread_mutex_unlock(&self->workers_mu);
    if (self->journal != NULL && worker->slot == TG_NO_SLOT &&
        tg_journal_acquire(self->journal, &worker->slot) != TG_OK) {
        worker->slot = TG_NO_SLOT; /* all slots are taken: run without */
    }
    worker->outer = outer;
    worker->below = below;
    if (below != NULL) {
        atomic_store_explicit(&below->inner_active, 1, memory_order_relaxed);
    }
    worker->depth = outer ? outer->depth + 1 : 0;
    if (outer != NULL) {
        atomic_store_explicit(&outer->inner_active, 1, memory_order_relaxed);
    }
    pthread_setspecific(self->state->worker_key, worker);
    return worker;
}

void tg_worker_leave(CoreObject *self, struct tg_worker *worker)
{
    atomic_store_explicit(&worker->start_ns, 0, memory_order_relaxed);
    pthread_setspecific(self->state->worker_key, worker->outer);
    if (worker->outer != NULL) {
        atomic_store_explicit(&worker->outer->inner_active, 0, memory_order_relaxed);
        worker->outer = NULL;
    }
    if (worker->below != NULL) {
        atomic_store_explicit(&worker->below->inner_active, 0, memory_order_relaxed);
        worker->below = NULL;
    }
    if (self->journal != NULL && worker->slot != TG_NO_SLOT) {
        tg_journal_release(self->journal, worker->slot);
        worker->slot = TG_NO_SLOT;
    }
    pthread_mutex_lock(&self->workers_mu);
    worker->in_use = 0;
    pthread_mutex_unlock(&self->workers_mu);
}

static int is_interrupted(const struct tg_worker *worker)
{
    return worker->interrupted != 0 && worker->interrupted == atomic_load_explicit(&worker->sequence, memory_order_relaxed) &&
           atomic_load_explicit(&worker->start_ns, memory_order_relaxed) != 0;
}

static int has_id_alone(unsigned long thread_id)
{
    int n = 0;
    PyThreadState *state = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    for (; state != NULL; state = PyThreadState_Next(state)) {
        n += state->thread_id == thread_id;
    }
    return n <= 1;
}

/* PyThreadState_SetAsyncExc, aimed well. In Python 3.11 the state of a thread that is being started has its parent's id until
 * it runs, and would be taken for it: the child would die of what was meant for the parent, which waits for it for ever. It
 * needs no GIL to get its own id, so we hold ours until it has (a tenth of a second at most). */
int tg_thread_raise(unsigned long thread_id, PyObject *exception)
{
    const struct timespec pause = {.tv_nsec = 20000};
    for (int i = 0; i < 2000 && !has_id_alone(thread_id); i++) {
        nanosleep(&pause, NULL);
    }
    return PyThreadState_SetAsyncExc(thread_id, exception);
}

int tg_thread_is_struck(unsigned long thread_id)
{
    PyThreadState *state = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    while (state != NULL && (state->thread_id != thread_id || state->async_exc == NULL)) {
        state = PyThreadState_Next(state);
    }
    return state != NULL;
}

int tg_worker_take_interrupt(CoreObject *self)
{
    unsigned long thread_id = PyThread_get_thread_ident();
    struct tg_worker *worker = tg_worker_current(self->state);
    if (worker == NULL) { /* the record of a loop is not the current one of its thread */
        pthread_mutex_lock(&self->workers_mu);
        for (worker = self->workers; worker != NULL; worker = worker->next) {
            if (worker->in_use && worker->on_loop && worker->thread_id == thread_id && is_interrupted(worker)) {
                break;
            }
        }
        pthread_mutex_unlock(&self->workers_mu);
    }
    if (worker == NULL || !is_interrupted(worker) || PyThreadState_Get()->async_exc == NULL) {
        return 0; /* or delivered before, to code that swallowed it */
    }
    tg_thread_raise(thread_id, NULL);
    return 1;
}

int tg_worker_any_fresh(CoreObject *self, uint64_t now_ns, uint64_t age_ns, uint64_t *retry_ns)
{
    int fresh = 0;
    pthread_mutex_lock(&self->workers_mu);
    for (struct tg_worker *worker = self->workers; worker != NULL; worker = worker->next) {
        uint64_t start = atomic_load_explicit(&worker->start_ns, memory_order_relaxed);
        if (worker->in_use && !worker->on_loop && start != 0 && start + age_ns > now_ns) {
            fresh = 1;
            *retry_ns = start + age_ns;
            break;
        }
    }
    pthread_mutex_unlock(&self->workers_mu);
    return fresh;
}
