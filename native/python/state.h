/* state.h - what the files of the module share: module state, object layouts, and who calls whom.
 *
 * Rules of this folder
 *   GIL:   every field of a Python object here is guarded by the GIL, unless it says otherwise.
 *   Locks: the core's mutex and the two mutexes of a CoreObject may be taken with the GIL held. Nobody waits for the GIL
 *          while holding one, and no Python code runs under one.
 *   Items: an item of a Python kind is freed only by a thread that holds the GIL.
 *   Fork:  every entry asks tg_core_check first; a child gets ExecutorClosed and frees nothing.
 */
#ifndef TIDEGATE_PY_STATE_H
#define TIDEGATE_PY_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "tidegate/tidegate.h"

#define TG_NO_SLOT UINT32_MAX
#define TG_HELP_DEPTH 8 /* how deep waiting threads run other items before they only wait */

struct tg_module_state {
    void *driver; /* must be first: see driver.h */
    PyTypeObject *core_type;
    PyTypeObject *lane_type;
    PyTypeObject *limit_type;
    PyTypeObject *run_type;
    PyTypeObject *ccall_type;
    PyTypeObject *pump_type;
    PyTypeObject *scope_type;
    PyObject *current_var;  /* ContextVar that holds the Scope of the item that runs */
    PyObject *item_timeout; /* exception that interrupts a sync item; cause of a timed-out one */
    PyObject *cancelled_error;
    PyObject *closed_error;
    PyObject *full_error;
    PyObject *configuration_error;
    PyObject *coarse_keys[TG_CLASSES][TG_COARSE_BUCKETS]; /* made on first use: run_type.c */
    int context_layout_known; /* see ambient.c */
    int has_worker_key;
    pthread_key_t worker_key; /* the innermost struct tg_worker of this thread */
};

struct tg_module_state *tg_state_of_type(PyTypeObject *type);

/* ---- errors.c ---- */

/* Sets the exception for a status that is not TG_OK. Always returns NULL. */
PyObject *tg_raise_status(struct tg_module_state *state, tg_status status, const char *what);

/* ---- worker.c: one thread that runs items, one nesting level ---- */

struct tg_worker {
    struct tg_worker *next;  /* all workers of a core; guarded by workers_mu */
    struct tg_worker *outer; /* the level below on the same thread; owner only */
    struct tg_core_object *core;
    unsigned long thread_id;
    int in_use;              /* workers_mu */
    int depth;
    uint32_t tag;
    uint32_t slot;           /* journal slot or TG_NO_SLOT */
    /* Written by the owner with relaxed stores; the watchdog and the sentinel read them, and a late value only makes them
     * look again. start_ns is 0 while no user code runs. */
    _Atomic uint64_t start_ns;
    _Atomic uint64_t sequence;
    _Atomic uint64_t timeout_ns;
    _Atomic uint64_t hard_ns;
    _Atomic uint64_t overdue; /* sequence that the watchdog found overdue */
    uint64_t interrupted;     /* sequence an interrupt was sent to; GIL */
    uint64_t struck_ns;       /* when it was sent, or last found not delivered yet; GIL */
    _Atomic int inner_active; /* a nested level runs items now: not to be interrupted */
    /* Of the record of an event loop (pump_watch.h), else 0. */
    _Atomic int on_loop; /* written with the GIL, read by the watchdog without */
    _Atomic int active;   /* steps are being made */
    uint64_t looked_at;   /* watchdog: the sequence that the look before found running */
    uint64_t overdue_ns;  /* watchdog: when it was last found overdue */
    struct tg_worker *below; /* owner: the loop's record whose step runs this level */
};

struct tg_core_object;
struct tg_run_object;

struct tg_worker *tg_worker_enter(struct tg_core_object *self);
void tg_worker_leave(struct tg_core_object *self, struct tg_worker *worker);
struct tg_worker *tg_worker_current(struct tg_module_state *state);
/* Takes back the interrupt of the item that waits on this thread, and answers whether there was one. With the GIL. */
int tg_worker_take_interrupt(struct tg_core_object *self);
int tg_thread_raise(unsigned long thread_id, PyObject *exception); /* NULL takes back what was not delivered */
int tg_thread_is_struck(unsigned long thread_id);                  /* something raised there was not delivered yet */
/* Whether some thread began a sync item less than `age_ns` ago; *retry_ns: when to look again. No GIL. */
int tg_worker_any_fresh(struct tg_core_object *self, uint64_t now_ns, uint64_t age_ns, uint64_t *retry_ns);

/* ---- objects ---- */

typedef struct {
    PyObject_HEAD
    PyObject *job_id;
    uint64_t first_index;
    uint64_t position;
    uint32_t attempt;
} ScopeObject;

/* A context that one item (or a stretch of items that leave it alone) runs in. */
struct tg_ambient {
    PyObject *context;
    ScopeObject *scope;
    void *vars; /* the mapping inside the context when it was made: see ambient.c */
    struct tg_run_object *run; /* whose items it is for */
    int entered;
};

#define TG_PUMPS (TG_KINDS - 2)

typedef struct tg_core_object {
    PyObject_HEAD
    struct tg_module_state *state;
    struct tg_core *core;
    struct tg_journal *journal;
    struct tg_outlog *outlog; /* or NULL; written with the GIL */
    struct tg_cpool *cpool;
    PyObject *capture;  /* (error, facts...) -> a failure record */
    PyObject *encode;   /* (value) -> bytes for the outcome log; NULL without one */
    PyObject *describe; /* (token, failure record) -> bytes for the outcome log; NULL without one */
    PyObject *spawn;   /* (role: str) -> starts a Python thread that calls serve(role) */
    PyObject *weakrefs;
    uint64_t steal_ns;
    pid_t pid;
    int closed;

    pthread_mutex_t workers_mu;
    struct tg_worker *workers;
    uint32_t next_tag;

    /* threads.c; guarded by idle_mu, waited for on parked */
    pthread_mutex_t idle_mu;
    pthread_cond_t parked;
    int sentinel;      /* a thread watches for work */
    _Atomic int entering; /* a thread has claimed a run and waits for the GIL */
    uint32_t n_parked;
    uint32_t n_threads; /* serving threads alive */
    uint32_t n_starting;
    uint32_t max_threads;
    uint32_t lent_threads; /* serving threads that only wait, inside an item, for other items */
    int threads_given;     /* max_threads is what the caller said */
    uint32_t wanted_threads; /* sum of sync lanes' concurrency */
    uint64_t idle_ns;  /* how long a parked thread stays */
    _Atomic int stopping;

    /* watchdog.c; guarded by watch_mu */
    pthread_mutex_t watch_mu;
    pthread_cond_t watch_cond;     /* wakes the watchdog */
    pthread_cond_t interrupt_cond; /* wakes the interrupter */
    pthread_t watchdog;
    int has_watchdog;
    int has_interrupter;
    int interrupts; /* something is overdue */
    _Atomic uint64_t min_timeout_ns;
    _Atomic int watch_idle;
    _Atomic int hard_calls; /* C calls with a hard timeout that have not ended: cpool is there */

    /* pump.c: event descriptors by kind bit; guarded by pump_mu */
    pthread_mutex_t pump_mu;
    int pump_fds[TG_PUMPS];
    _Atomic uint64_t pump_hard_due[TG_PUMPS]; /* when a stuck coroutine ends the process; 0: none */
    struct tg_pump_object *pumps[TG_PUMPS]; /* borrowed; GIL */
} CoreObject;

typedef struct {
    PyObject_HEAD
    CoreObject *core;
    struct tg_limit *limit;
    int kind;
    int keyed;
} LimitObject;

struct tg_flight;

typedef struct tg_lane_object {
    PyObject_HEAD
    CoreObject *core;
    struct tg_lane *lane;
    PyObject *name;
    PyObject *function;
    PyObject *classify; /* (error) -> (verdict, retry_after_ns) */
    PyObject *limits;   /* tuple of LimitObject, keeps them alive */
    PyObject *keys;     /* tuple of key functions, one per keyed limit */
    PyObject *errors;   /* dict: error type -> count since the last snapshot */
    unsigned kind;
    uint64_t timeout_ns;
    uint64_t hard_ns;
    uint64_t max_wait_ns;
    uint32_t attempts;
    uint32_t max_crashes;
    uint32_t concurrency;
    /* pump.c: coroutines in flight, oldest first */
    struct tg_flight *first;
    struct tg_flight *last;
    /* snapshot.c: what was reported already */
    struct tg_lane_stats reported;
    struct tg_histogram *histograms[TG_CLASSES];
} LaneObject;

struct tg_detail {
    uint64_t run_ns;
    uint64_t wait_ns;
    uint32_t attempts;
};

#define TG_TOLD 0x80 /* in RunObject.outcomes: take() has told of it */

typedef struct tg_run_object {
    PyObject_HEAD
    CoreObject *core;
    LaneObject *lane;
    struct tg_group *group;
    PyObject *items; /* tuple */
    PyObject *function;
    PyObject *context; /* or NULL */
    PyObject *job_id;
    PyObject *origin;
    PyObject *callbacks; /* list of callables, or NULL */
    PyObject *prior;     /* bytes: executions before this run, by position; or NULL */
    Py_ssize_t n;
    int shape;
    uint64_t first_index;

    PyObject *list;     /* of values by position, unknown to the collector; NULL once take() has handed it over */
    PyObject **values;  /* its places; NULL until the item succeeded or after it was taken */
    uint8_t *outcomes;  /* enum tg_outcome by position, and TG_TOLD; 0: not settled */
    Py_ssize_t n_fresh; /* settled and not told by take() yet */
    Py_ssize_t n_fresh_bad; /* of those, without success */
    Py_ssize_t low;     /* all before it is told, or was never this run's */
    Py_ssize_t remaining;
    uint8_t *attempts;  /* executions by position, made when something is returned or deferred */
    PyObject **errors;  /* exceptions between an attempt's end and its decision; made on first use */
    PyObject *history;  /* dict: position -> list of lines; or NULL */
    PyObject *failures; /* list of records not taken yet, or NULL */
    PyObject *returned; /* list of positions, or NULL */
    PyObject *deferred; /* list of (position, due_in_ms), or NULL */
    struct tg_detail *detail; /* by position, when asked for */
    uint64_t early[TG_OUTCOMES]; /* items settled before submission: crashed too often, key function failed */
    struct tg_outlog_part outlog; /* what the outcome log has of this run */
    struct tg_group_stats reported;
    uint64_t *coarse; /* TG_CLASSES * TG_COARSE_BUCKETS: what was reported already, or NULL */
    int done;
    int cancelled;
} RunObject;

/* ---- ambient.c ---- */
int tg_context_layout_check(struct tg_module_state *state);
/* Makes `ambient` a context for the next item of `run`: the one it has when that was left alone, else a fresh copy.
 * With `enter`, it is the current one on return. */
int tg_ambient_renew(struct tg_module_state *state, struct tg_ambient *ambient, RunObject *run, int enter);

/* CPython's struct _pycontextobject, as far as it is read; see ambient.c for when and why. */
struct tg_known_context {
    PyObject_HEAD
    PyObject *previous;
    PyObject *vars;
};

static inline int tg_ambient_ready(struct tg_module_state *state, struct tg_ambient *ambient, RunObject *run, int enter)
{
    if (ambient->run == run && state->context_layout_known) {
        PyObject *vars = ((struct tg_known_context *)ambient->context)->vars;
        if (vars == ambient->vars && Py_REFCNT(vars) == 1 && Py_REFCNT(ambient->context) == 1 + ambient->entered) {
            return 0; /* nobody changed it, nobody kept a copy of it */
        }
    }
    return tg_ambient_renew(state, ambient, run, enter);
}
/* Gives the context away: the next call of tg_ambient_ready makes another. */
void tg_ambient_drop(struct tg_ambient *ambient);

/* ---- settle.c ---- */
void tg_run_success_extras(RunObject *run, const struct tg_item *item);
/* The item succeeded; steals `value`. */
static inline void tg_run_succeeded(RunObject *run, const struct tg_item *item, PyObject *value)
{
    uint64_t position = item->position;
    run->values[position] = value;
    run->outcomes[position] = TG_OUTCOME_SUCCEEDED;
    run->n_fresh++;
    run->remaining--;
    if (run->errors != NULL || run->detail != NULL) {
        tg_run_success_extras(run, item);
    }
}
/* The attempt raised `error` (borrowed): remembers it until it is decided, answers the verdict and the least delay. */
enum tg_verdict tg_run_attempt_failed(RunObject *run, const struct tg_item *item, PyObject *error, int kind_of_end,
                                      uint64_t *retry_after_ns);
enum { TG_END_RAISED = 0, TG_END_TIMED_OUT = 1, TG_END_CANCELLED = 2 };
/* Forgets the errors of attempts that will be repeated. */
void tg_run_forget_error(RunObject *run, uint64_t position, PyObject *error);
/* Writes the outcome of decided items and settles them. */
void tg_settle_decided(CoreObject *core, struct tg_item **items, size_t n);
/* Settles what other threads decided, and completes runs that are done. */
void tg_settle_pending(CoreObject *core);
/* An item that ends before it was ever submitted. */
int tg_run_settle_early(RunObject *run, Py_ssize_t position, enum tg_outcome outcome, PyObject *error);

/* ---- culprit.c ---- */
/* The journal slot of the item whose code runs on this thread, or NULL. */
extern _Thread_local struct tg_journal_slot *tg_running_slot __attribute__((tls_model("initial-exec")));
PyObject *tg_name_culprits(PyObject *module, PyObject *ignored);
PyObject *tg_blame(PyObject *module, PyObject *ignored);

static inline struct tg_journal_slot *tg_slot_at(const CoreObject *core, uint32_t slot)
{
    return core->journal != NULL && slot != TG_NO_SLOT ? &core->journal->slots[slot] : NULL;
}

/* ---- outcomes.c: the outcome log, when there is one ---- */
/* The item at `position` returned `value`. May run Python code (an encoder); clears its errors. */
void tg_record_success(RunObject *run, uint64_t position, unsigned attempts, PyObject *value);
/* The item ended otherwise, for good, described by `failure`. */
void tg_record_failure(RunObject *run, uint64_t position, enum tg_outcome outcome, unsigned attempts, PyObject *failure);
/* What is taken now is being reported; it was; the run is over. */
void tg_outcomes_sent(RunObject *run);
PyObject *tg_outcomes_reported(RunObject *run, PyObject *ignored);
void tg_outcomes_end(RunObject *run);
PyObject *tg_outcomes_read(PyObject *module, PyObject *path);

/* ---- sync.c ---- */
/* Claims and runs sync items on this thread until none can start, `until` is done or `deadline_ns` has passed. With the GIL.
 * `claimed` may hand in a run. *due_ns: when something will be due. */
void tg_sync_serve(CoreObject *core, struct tg_worker *worker, struct tg_run *claimed, RunObject *until,
                   uint64_t deadline_ns, uint64_t *due_ns);
/* Calls a function with an item of the given shape. */
PyObject *tg_call_item(PyObject *function, PyObject *item, int shape);
/* Calls the run's function. One in Python is called without the check that what it returned agrees with the error it set:
 * it always does. */
static inline PyObject *tg_run_call(RunObject *run, PyObject *item)
{
    if (run->shape != 0) {
        return tg_call_item(run->function, item, run->shape);
    }
    PyObject *stack[2] = {NULL, item};
    if (Py_IS_TYPE(run->function, &PyFunction_Type)) {
        vectorcallfunc enter = ((PyFunctionObject *)run->function)->vectorcall;
        return enter(run->function, stack + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    return PyObject_Vectorcall(run->function, stack + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}
/* The exception that is set, as an instance with its traceback; none is set after. New reference. */
PyObject *tg_take_exception(void);

/* ---- threads.c ---- */
PyObject *tg_core_serve(CoreObject *self); /* body of a serving thread */
/* At least one serving thread is there. -1: an exception from outside (Ctrl-C, the timeout of the item that runs here) came
 * while it was being started. */
int tg_threads_ensure(CoreObject *self);
/* This thread only waits from here on, inside an item: another may work in its place. With the GIL. -1 as above; it is lent
 * all the same. */
int tg_threads_lend(CoreObject *self);
void tg_threads_take_back(CoreObject *self);
void tg_threads_stop(CoreObject *self);

/* ---- watchdog.c ---- */
int tg_watchdog_ensure(CoreObject *self);
void tg_watchdog_stop(CoreObject *self);
void tg_watchdog_note(CoreObject *self); /* something with a timeout started while the watchdog was idle */
PyObject *tg_core_interrupt(CoreObject *self); /* body of the interrupting thread */

/* ---- pump.c ---- */
void tg_pump_wake(void *core_object, unsigned kinds);
void tg_pump_run_cancelled(RunObject *run);

/* ---- snapshot.c ---- */
PyObject *tg_lane_snapshot(LaneObject *lane);
int tg_stats_add_coarse(struct tg_module_state *state, PyObject *dict, int class_, uint32_t index, uint64_t count);

/* ---- types ---- */
PyObject *tg_lane_start(LaneObject *self, PyObject *args, PyObject *kwargs);
extern PyType_Spec tg_core_spec, tg_lane_spec, tg_limit_spec, tg_run_spec, tg_ccall_spec, tg_pump_spec, tg_scope_spec;

/* ---- core_make.c ---- */
PyObject *tg_core_limit(CoreObject *self, PyObject *args, PyObject *kwargs);
PyObject *tg_core_lane(CoreObject *self, PyObject *args, PyObject *kwargs);

/* ---- run_take.c ---- */
PyObject *tg_run_take_settled(RunObject *run, PyObject *unused);

/* ---- ccall_type.c ---- */
PyObject *tg_ccall_start(LaneObject *lane, PyObject *args, PyObject *kwargs);
void tg_ccall_finished(PyObject *ccall);

static inline int tg_alive(CoreObject *core)
{
    if (core->core == NULL || core->closed) {
        tg_raise_status(core->state, TG_CLOSED, "executor");
        return 0;
    }
    tg_status status = tg_core_check(core->core);
    if (status != TG_OK) {
        tg_raise_status(core->state, status, "executor");
        return 0;
    }
    return 1;
}

#endif
