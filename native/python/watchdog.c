/* watchdog.c - finds items that run too long.
 *
 * Two threads, made when the first item with a timeout starts. The watchdog is a plain thread that never touches Python and
 * never needs the GIL: it reads start times that workers store, and when an item is past its hard timeout it writes the
 * stacks of all threads and ends the process; the crash journal then names the item. The interrupter is a Python thread
 * that the watchdog wakes for items past their (soft) timeout: it takes the GIL, which may last if an item sits on it, and
 * raises the timeout inside the item, and again when the item goes on for another timeout after it was struck: it may have
 * swallowed it, or Python has, which can only report what strikes a destructor. See sync.c for why it cannot hit the wrong
 * item. */
#include "state.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define HARD_EXIT_CODE 86
#define SHORTEST_LOOK_NS 1000000u
#define LONGEST_LOOK_NS 1000000000u
#define AGAIN 4 /* looks in a timeout whether an interrupt has to come again */
/* Before it goes to sleep: coroutines that suspend and resume all the time shall not wake it each time. */
#define QUIET_LOOKS 2

/* The signal that writes the stacks of all threads: host.py registers faulthandler for it. */
#define DUMP_SIGNAL (SIGRTMIN + 7)

static void write_text(const char *text)
{
    size_t left = strlen(text);
    while (left != 0) {
        ssize_t wrote = write(2, text, left);
        if (wrote <= 0) {
            return;
        }
        text += wrote;
        left -= (size_t)wrote;
    }
}

static void on_fault(int number)
{
    (void)number;
    _exit(HARD_EXIT_CODE);
}

/* What is dumped are the frames of threads that run on meanwhile, unless the stuck item sits on the GIL: reading them may
 * fault. Then the rest of the dump is missing, and the process ends as it was to end. */
static void survive_the_dump(void)
{
    struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
}

static _Noreturn void end_process(const char *what, uint64_t late_ns)
{
    char line[160];
    snprintf(line, sizeof line, "tidegate: %s is %.3f s past its hard timeout: ending the process (exit %d)\n", what,
             (double)late_ns / 1e9, HARD_EXIT_CODE);
    write_text(line);
    struct sigaction action;
    if (sigaction(DUMP_SIGNAL, NULL, &action) == 0 && action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, DUMP_SIGNAL);
        sigaddset(&set, SIGSEGV);
        sigaddset(&set, SIGBUS);
        survive_the_dump();
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
        pthread_kill(pthread_self(), DUMP_SIGNAL); /* runs here and now: faulthandler needs no GIL */
    }
    _exit(HARD_EXIT_CODE);
}

static uint64_t look_period_ns(CoreObject *self)
{
    uint64_t period = atomic_load_explicit(&self->min_timeout_ns, memory_order_relaxed) / 8;
    return period < SHORTEST_LOOK_NS ? SHORTEST_LOOK_NS : period > LONGEST_LOOK_NS ? LONGEST_LOOK_NS : period;
}

/* Looks at every worker. Returns when to look again (TG_NEVER: nothing with a timeout runs). */
static uint64_t look(CoreObject *self, uint64_t now, int *overdue)
{
    uint64_t next = TG_NEVER;
    int busy = 0;
    pthread_mutex_lock(&self->workers_mu);
    for (struct tg_worker *worker = self->workers; worker != NULL; worker = worker->next) {
        uint64_t sequence = atomic_load_explicit(&worker->sequence, memory_order_acquire);
        uint64_t start = atomic_load(&worker->start_ns);
        uint64_t timeout = atomic_load_explicit(&worker->timeout_ns, memory_order_relaxed);
        uint64_t hard = atomic_load_explicit(&worker->hard_ns, memory_order_relaxed);
        int running = start != 0 && (timeout != 0 || hard != 0);
        if (!worker->in_use || !(running || atomic_load_explicit(&worker->active, memory_order_seq_cst))) {
            continue;
        }
        busy = 1;
        if (!running) {
            continue;
        }
        if (hard != 0 && now >= start + hard) {
            /* Once more, now that both are read: the sequence may belong to a newer item than the start. */
            if (atomic_load_explicit(&worker->start_ns, memory_order_relaxed) == start) {
                end_process("an item", now - start - hard);
            }
        }
        if (hard != 0 && start + hard < next) {
            next = start + hard;
        }
        if (timeout == 0 || (atomic_load_explicit(&worker->overdue, memory_order_relaxed) == sequence &&
                             now < worker->overdue_ns + timeout / AGAIN)) {
            continue;
        }
        int seen_before = worker->looked_at == sequence;
        worker->looked_at = sequence;
        if (now < start + timeout) {
            next = start + timeout < next ? start + timeout : next;
        } else if (worker->on_loop && !seen_before) {
            next = now + SHORTEST_LOOK_NS; /* it may just have begun: pump_watch.h */
        } else if (atomic_load_explicit(&worker->inner_active, memory_order_relaxed)) {
            next = now + 10 * SHORTEST_LOOK_NS; /* it waits and runs other items meanwhile: after them */
        } else {
            worker->overdue_ns = now;
            atomic_store_explicit(&worker->overdue, sequence, memory_order_relaxed);
            *overdue = 1;
        }
    }
    pthread_mutex_unlock(&self->workers_mu);
    for (int i = 0; i < TG_PUMPS; i++) {
        uint64_t due = atomic_load_explicit(&self->pump_hard_due[i], memory_order_relaxed);
        if (due != 0 && now >= due) {
            end_process("a coroutine", now - due);
        }
        if (due != 0) {
            busy = 1;
            next = due < next ? due : next;
        }
    }
    if (atomic_load(&self->hard_calls) != 0) {
        uint64_t due = tg_cpool_due(self->cpool);
        if (now >= due) {
            end_process("a C function", now - due);
        }
        busy = 1;
        next = due < next ? due : next;
    }
    if (!busy) {
        return TG_NEVER;
    }
    /* A busy worker begins new items all the time: look often enough for the shortest timeout. */
    uint64_t period = look_period_ns(self);
    return next < now + period ? next : now + period;
}

static void *watchdog_main(void *argument)
{
    CoreObject *self = argument;
    unsigned quiet = 0;
    pthread_mutex_lock(&self->watch_mu);
    while (!atomic_load_explicit(&self->stopping, memory_order_relaxed)) {
        /* Before the look: who starts after it, sees it and signals. */
        atomic_store_explicit(&self->watch_idle, 1, memory_order_seq_cst);
        uint64_t now = tg_clock_monotonic.now_ns(tg_clock_monotonic.ctx);
        int overdue = 0;
        uint64_t next = look(self, now, &overdue);
        if (overdue) {
            self->interrupts = 1;
            pthread_cond_signal(&self->interrupt_cond);
        }
        if (next == TG_NEVER && quiet < QUIET_LOOKS) {
            next = now + look_period_ns(self);
            quiet++;
        } else if (next != TG_NEVER) {
            quiet = 0;
        }
        if (next == TG_NEVER) {
            quiet = 0;
            pthread_cond_wait(&self->watch_cond, &self->watch_mu);
        } else {
            atomic_store_explicit(&self->watch_idle, 0, memory_order_relaxed);
            struct timespec deadline = {.tv_sec = (time_t)(next / 1000000000u), .tv_nsec = (long)(next % 1000000000u)};
            pthread_cond_timedwait(&self->watch_cond, &self->watch_mu, &deadline);
        }
    }
    pthread_mutex_unlock(&self->watch_mu);
    return NULL;
}

void tg_watchdog_note(CoreObject *self)
{
    pthread_mutex_lock(&self->watch_mu);
    atomic_store_explicit(&self->watch_idle, 0, memory_order_relaxed);
    pthread_cond_signal(&self->watch_cond);
    pthread_mutex_unlock(&self->watch_mu);
}

int tg_watchdog_ensure(CoreObject *self)
{
    if (!self->has_watchdog) {
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        int error = pthread_create(&self->watchdog, NULL, watchdog_main, self);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (error != 0) {
            errno = error;
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        self->has_watchdog = 1;
    }
    if (!self->has_interrupter) {
        PyObject *result = PyObject_CallFunction(self->spawn, "s", "interrupt");
        if (result == NULL) {
            return -1; /* refused, or Ctrl-C meanwhile: the next lane asks again, and two of them do no harm */
        }
        Py_DECREF(result);
        self->has_interrupter = 1;
    }
    return 0;
}

void tg_watchdog_stop(CoreObject *self)
{
    if (!self->has_watchdog) {
        return;
    }
    pthread_mutex_lock(&self->watch_mu);
    pthread_cond_broadcast(&self->watch_cond);
    pthread_cond_broadcast(&self->interrupt_cond);
    pthread_mutex_unlock(&self->watch_mu);
    if (tg_core_check(self->core) != TG_FORKED) {
        Py_BEGIN_ALLOW_THREADS
        pthread_join(self->watchdog, NULL);
        Py_END_ALLOW_THREADS
    }
    self->has_watchdog = self->has_interrupter = 0;
}

/* Whether the item's first interrupt is due, or another: a timeout after the one before struck it, and not after it was sent,
 * because an item in C is only struck when it comes back. The watchdog asks every AGAIN-th of a timeout. */
static int is_strike_due(struct tg_worker *worker, uint64_t sequence, uint64_t now)
{
    if (worker->interrupted != sequence) {
        return 1;
    }
    if (tg_thread_is_struck(worker->thread_id)) {
        worker->struck_ns = now;
        return 0;
    }
    uint64_t timeout = atomic_load_explicit(&worker->timeout_ns, memory_order_relaxed);
    return now - worker->struck_ns >= timeout + timeout / AGAIN;
}

/* Sends the interrupts that are due. With the GIL, so no worker is between its check and its next item. */
static void interrupt_overdue(CoreObject *self)
{
    unsigned long targets[64];
    int n = 0;
    uint64_t now = tg_clock_monotonic.now_ns(tg_clock_monotonic.ctx);
    pthread_mutex_lock(&self->workers_mu);
    for (struct tg_worker *worker = self->workers; worker != NULL && n < 64; worker = worker->next) {
        uint64_t sequence = atomic_load_explicit(&worker->sequence, memory_order_relaxed);
        if (worker->in_use && atomic_load_explicit(&worker->overdue, memory_order_relaxed) == sequence &&
            atomic_load_explicit(&worker->start_ns, memory_order_relaxed) != 0 &&
            !atomic_load_explicit(&worker->inner_active, memory_order_relaxed) && is_strike_due(worker, sequence, now)) {
            worker->interrupted = sequence;
            worker->struck_ns = now;
            targets[n++] = worker->thread_id;
        }
    }
    pthread_mutex_unlock(&self->workers_mu);
    for (int i = 0; i < n; i++) {
        tg_thread_raise(targets[i], self->state->item_timeout);
    }
}

PyObject *tg_core_interrupt(CoreObject *self)
{
    while (!atomic_load_explicit(&self->stopping, memory_order_relaxed)) {
        Py_BEGIN_ALLOW_THREADS
        pthread_mutex_lock(&self->watch_mu);
        while (!self->interrupts && !atomic_load_explicit(&self->stopping, memory_order_relaxed)) {
            pthread_cond_wait(&self->interrupt_cond, &self->watch_mu);
        }
        self->interrupts = 0;
        pthread_mutex_unlock(&self->watch_mu);
        Py_END_ALLOW_THREADS
        interrupt_overdue(self);
    }
    Py_RETURN_NONE;
}
