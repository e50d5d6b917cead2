/* threads.c - the threads that serve sync lanes.
 *
 * One idle thread at most is the sentinel: it waits in the core for work, without the GIL. The others are parked. The
 * sentinel takes work only when no busy thread has begun an item lately: a thread that goes from item to item needs no help,
 * and help would only make it lose the GIL; one whose item blocks is seen after `steal_ns`, and then the sentinel goes to
 * work and hands its role to a parked thread, or to a new one. So there are as many threads as items that block
 * at once, at most `max_threads` and one for each that only waits for items of its own, and an idle executor uses no processor time. While one thread waits for the GIL with work in
 * hand, no other takes work: it would only wait behind it. */
#include "state.h"

#include <errno.h>
#include <time.h>

#define POLL_MAX_NS 2000000u
#define PARK_LIMIT 1024u

static void deadline_in(struct timespec *deadline, uint64_t ns)
{
    clock_gettime(CLOCK_MONOTONIC, deadline);
    uint64_t nanoseconds = (uint64_t)deadline->tv_nsec + ns % 1000000000u;
    deadline->tv_sec += (time_t)(ns / 1000000000u + nanoseconds / 1000000000u);
    deadline->tv_nsec = (long)(nanoseconds % 1000000000u);
}

static void sleep_ns(uint64_t ns)
{
    struct timespec time = {.tv_sec = 0, .tv_nsec = (long)ns};
    nanosleep(&time, NULL);
}

static int is_stopping(CoreObject *self)
{
    return atomic_load_explicit(&self->stopping, memory_order_relaxed);
}

/* Waits to become the sentinel. 0: the thread has been idle for long and may end. No GIL. */
static int wait_for_role(CoreObject *self)
{
    int answer = 1;
    pthread_mutex_lock(&self->idle_mu);
    if (self->sentinel) {
        struct timespec deadline;
        deadline_in(&deadline, self->idle_ns);
        self->n_parked++;
        while (self->sentinel && !is_stopping(self)) {
            if (pthread_cond_timedwait(&self->parked, &self->idle_mu, &deadline) == ETIMEDOUT) {
                answer = !self->sentinel;
                break;
            }
        }
        self->n_parked--;
    }
    if (answer) {
        self->sentinel = 1;
    }
    pthread_mutex_unlock(&self->idle_mu);
    return answer;
}

/* Hands the role on. Answers whether a new thread has to be started for it. */
static int pass_role(CoreObject *self, int found_work)
{
    int spawn = 0;
    pthread_mutex_lock(&self->idle_mu);
    self->sentinel = 0;
    if (self->n_parked != 0) {
        pthread_cond_signal(&self->parked);
    } else if (found_work && self->n_threads + self->n_starting < self->max_threads + self->lent_threads) {
        self->n_starting++;
        spawn = 1;
    }
    pthread_mutex_unlock(&self->idle_mu);
    return spawn;
}

/* The sentinel's watch: ends with a run claimed, or with something to settle, or when the executor stops. No GIL. */
static struct tg_run *watch(CoreObject *self, struct tg_worker *worker)
{
    uint64_t timeout_ns = TG_NEVER, pause_ns = self->steal_ns;
    while (!is_stopping(self)) {
        tg_status status = tg_core_wait(self->core, TG_KIND_SYNC, timeout_ns);
        if (is_stopping(self) || (status != TG_OK && status != TG_TIMEOUT)) {
            break;
        }
        uint64_t now = tg_core_now(self->core), retry_ns, due_ns;
        if (atomic_load_explicit(&self->entering, memory_order_relaxed) ||
            tg_worker_any_fresh(self, now, self->steal_ns, &retry_ns)) {
            sleep_ns(pause_ns);
            pause_ns = pause_ns * 2 > POLL_MAX_NS ? POLL_MAX_NS : pause_ns * 2;
            timeout_ns = 0;
            continue;
        }
        pause_ns = self->steal_ns;
        if (tg_core_has_settled(self->core) || tg_core_has_done(self->core)) {
            break;
        }
        struct tg_run *run = NULL;
        status = tg_core_claim(self->core, TG_KIND_SYNC, worker->tag, now, &run, &due_ns);
        if (run != NULL || (status != TG_OK && status != TG_NOMEM)) {
            return run;
        }
        if (status == TG_NOMEM) {
            sleep_ns(POLL_MAX_NS); /* there is work, so the wait would not wait */
        }
        timeout_ns = due_ns == TG_NEVER ? TG_NEVER : due_ns > now ? due_ns - now : 0;
    }
    return NULL;
}

/* 0, also when the system or a closing interpreter refused: those that are there go on. -1 with an exception that came from
 * outside while the thread was being started: what a signal's handler raised (Ctrl-C), or the timeout of the item that
 * started it. It is the caller's. */
static int start_thread(CoreObject *self)
{
    PyObject *result = PyObject_CallFunction(self->spawn, "s", "serve");
    if (result != NULL) {
        Py_DECREF(result);
        return 0;
    }
    pthread_mutex_lock(&self->idle_mu);
    self->n_starting -= self->n_starting != 0; /* it may have begun to serve, and said so itself */
    pthread_mutex_unlock(&self->idle_mu);
    if (!PyErr_ExceptionMatches(PyExc_RuntimeError) && !PyErr_ExceptionMatches(PyExc_MemoryError)) {
        return -1;
    }
    PyErr_Clear();
    return 0;
}

int tg_threads_ensure(CoreObject *self)
{
    pthread_mutex_lock(&self->idle_mu);
    uint32_t wanted = self->wanted_threads < PARK_LIMIT ? self->wanted_threads + 1 : PARK_LIMIT;
    if (self->max_threads < wanted && !self->threads_given) {
        self->max_threads = wanted;
    }
    int spawn = self->n_threads + self->n_starting == 0;
    self->n_starting += (uint32_t)spawn;
    pthread_mutex_unlock(&self->idle_mu);
    return spawn ? start_thread(self) : 0;
}

int tg_threads_lend(CoreObject *self)
{
    pthread_mutex_lock(&self->idle_mu);
    self->lent_threads++;
    /* Nobody watches: all were busy, and no more were allowed. */
    int spawn = !self->sentinel && self->n_parked == 0 && self->n_starting == 0 && !is_stopping(self);
    self->n_starting += (uint32_t)spawn;
    pthread_mutex_unlock(&self->idle_mu);
    return spawn ? start_thread(self) : 0;
}

void tg_threads_take_back(CoreObject *self)
{
    pthread_mutex_lock(&self->idle_mu);
    self->lent_threads--;
    pthread_mutex_unlock(&self->idle_mu);
}

PyObject *tg_core_serve(CoreObject *self)
{
    pthread_mutex_lock(&self->idle_mu);
    self->n_starting -= self->n_starting != 0;
    self->n_threads++;
    pthread_mutex_unlock(&self->idle_mu);
    struct tg_worker *worker = tg_worker_enter(self);
    while (worker != NULL && !is_stopping(self)) {
        struct tg_run *run = NULL;
        int stay, spawn = 0;
        Py_BEGIN_ALLOW_THREADS
        stay = wait_for_role(self);
        if (stay) {
            run = watch(self, worker);
            atomic_store_explicit(&self->entering, run != NULL, memory_order_relaxed);
            spawn = pass_role(self, run != NULL);
        }
        Py_END_ALLOW_THREADS
        if (run != NULL) {
            atomic_store_explicit(&self->entering, 0, memory_order_relaxed);
        }
        if (!stay) {
            break;
        }
        if (spawn && start_thread(self) < 0) {
            PyErr_Clear(); /* no item runs here: it is nobody's */
        }
        uint64_t due_ns;
        tg_settle_pending(self);
        if (run != NULL) {
            tg_sync_serve(self, worker, run, NULL, TG_NEVER, &due_ns);
        }
    }
    if (worker != NULL) {
        tg_worker_leave(self, worker);
    }
    pthread_mutex_lock(&self->idle_mu);
    self->n_threads--;
    pthread_mutex_unlock(&self->idle_mu);
    if (PyErr_Occurred()) {
        return NULL;
    }
    Py_RETURN_NONE;
}

void tg_threads_stop(CoreObject *self)
{
    atomic_store_explicit(&self->stopping, 1, memory_order_relaxed);
    pthread_mutex_lock(&self->idle_mu);
    pthread_cond_broadcast(&self->parked);
    pthread_mutex_unlock(&self->idle_mu);
    tg_core_wake(self->core);
}
