/* driver_internal.h - what the files of the coroutine driver share.
 *
 * ItemTask is a real subclass of asyncio's C Task, so that isinstance() holds everywhere. Its Future part (result, callbacks,
 * logging) is asyncio's own; its Task part (stepping, cancellation, names) is ours and the inherited one stays empty. The
 * layout of asyncio's structs is private: our fields begin where the base type's basicsize ends.
 *
 * Three objects:
 *   tgd_side    one per event loop: the spare tasks, the queue of tasks that wait for the loop's next turn
 *   tgd_driver  what the module holds: a side and where to report the end of a task
 *   tgd_task    one coroutine that suspended, or might: see driver_step.c */
#ifndef TIDEGATE_PY_DRIVER_INTERNAL_H
#define TIDEGATE_PY_DRIVER_INTERNAL_H

#include "driver.h"

#include <stddef.h>

#define TGD_SPARES_MAX 1024

typedef struct tgd_state {
    Py_ssize_t holders; /* the module and every object that points here: the last one frees it, in whatever order they go */
    PyTypeObject *future; /* _asyncio.Future and _asyncio.Task */
    PyTypeObject *task;
    PyTypeObject *item_task;
    PyTypeObject *waiting; /* ItemTask.__await__ */
    PyTypeObject *wakeup;
    PyTypeObject *side;
    PyTypeObject *driver;
    PyTypeObject *gathering;
    PyTypeObject *nap;
    PyObject *current_tasks; /* asyncio's dict of loop -> task */
    PyObject *register_task;
    PyObject *cancelled_error;
    PyObject *invalid_state_error;
    PyObject *iscoroutine;
    PyObject *ensure_future;
    PyObject *asyncio_gather;
    PyObject *asyncio_sleep;
    PyObject *get_running_loop;
    PyObject *format_repr, *format_stack, *print_stack; /* asyncio.base_tasks */
    /* Unbound methods of asyncio.Future. */
    PyObject *future_cancel, *future_set_result, *future_set_exception, *future_result, *future_exception;
    PyObject *future_add_done_callback, *future_done;
    /* The C functions behind its attributes: they read a field without a lookup. */
    PyGetSetDef *at_blocking, *at_loop, *at_state, *at_exception, *at_callbacks, *at_cancel_message, *at_log_traceback;
    PyObject *s_call_soon, *s_cancel, *s_msg, *s_throw, *s_result, *s_get_loop, *s_add_done_callback, *s_blocking,
        *s_pending, *s_finished, *s_cancelled, *s_side, *s_is_running, *s_loop, *s_done, *s_exception, *s_cancel_message,
        *s_make_cancelled_error;
    PyObject *kw_context, *kw_msg, *kw_loop; /* tuples of keyword names */
    PyObject *nothing;                       /* () */
    Py_ssize_t vars_at;     /* offset of the variables in a PyContext, 0 when the layout is not the known one */
    uint64_t names;         /* how many tasks have been given an automatic name */
    PyObject *last_loop;    /* weak reference: the loop whose side is last_side */
    PyObject *last_side;    /* borrowed; valid while last_loop is alive */
} tgd_state;

typedef struct tgd_side tgd_side;

enum tgd_phase {
    TGD_IDLE = 0,    /* a spare: says done() so that nobody waits for it */
    TGD_PENDING = 1,
    TGD_ENDED = 2,
};

typedef struct tgd_fields {
    tgd_state *state;
    tgd_side *side;             /* strong; NULL for a task made from Python, which needs only its loop */
    PyObject *loop;
    PyObject *coro;
    PyObject *context;
    PyObject *name;             /* NULL until someone asks */
    PyObject *waiter;           /* the future it waits for */
    PyObject *wakeup;           /* the callable given to futures, kept for the next time */
    PyObject *thrown;           /* what the next step throws into the coroutine */
    PyObject *cancel_message;
    PyObject *cancelled_error;  /* the one that ended it: raised once, with its traceback */
    const struct tg_driver_calls *calls; /* NULL: nobody but the Future part is told */
    void *owner;
    PyObject *owner_object;     /* keeps the owner alive, when it is a Python object */
    uint64_t token;
    size_t nap;                 /* driver_nap.c: place among the sleepers, from 1; 0: it does not sleep */
    PyObject *next;             /* in the side's turn queue (strong there) or among its spares */
    uint32_t cancels;
    uint8_t phase;
    uint8_t must_cancel;
    uint8_t cancelled_at_end;   /* it returned before a request for cancellation reached it */
    uint8_t log_destroyed;
    uint8_t touched;            /* it may have callbacks or attributes: never recycle it */
    uint8_t fatal_passes;       /* KeyboardInterrupt and SystemExit leave the loop, as they do from asyncio.Task */
} tgd_fields;

extern Py_ssize_t tgd_fields_at; /* a constant of the Python in use */

static inline tgd_fields *tgd_fields_of(PyObject *task)
{
    return (tgd_fields *)((char *)task + tgd_fields_at);
}

/* A task that sleeps. */
struct tgd_nap {
    uint64_t due_ns;
    PyObject *task;             /* strong */
};

struct tgd_side {
    PyObject_HEAD
    tgd_state *state;
    PyObject *loop;
    PyObject *init_kwargs;      /* {"loop": loop} */
    PyObject *turn_head;        /* tasks that wait for the next turn, linked by fields.next */
    PyObject *turn_tail;
    PyObject *spares;
    PyObject *seat;             /* strong: an idle task that is the loop's current one, ready for a first step */
    int n_spares;
    int brackets;               /* of tg_driver_enter that are open */
    int drivers;                /* that exist on this side */
    int beat_fd;                /* driver_beat.c: -1 while there is none */
    int beat_refused;
    unsigned quiet_beats;
    uint64_t ends;
    uint64_t ends_at_beat;
    uint64_t window_ns;         /* when the last 256 ends were complete */
    struct tgd_nap *naps;       /* driver_nap.c: the sleepers, a heap */
    size_t n_naps, nap_room;
    uint64_t nap_armed_ns;      /* when the loop wakes up for them; 0: not */
    int nap_fd;                 /* -1 while there is none */
    int nap_fd_refused;
    int turn_scheduled;
    int in_turn;                /* more tasks of this turn follow the one that runs */
    int debug;
};

typedef struct tgd_driver {
    PyObject_HEAD
    tgd_state *state;
    tgd_side *side;
    const struct tg_driver_calls *calls;
    void *owner;
    PyObject *on_settled; /* only when made from Python */
} tgd_driver;

/* driver_state.c */
static inline tgd_state *tgd_state_hold(tgd_state *state)
{
    state->holders++;
    return state;
}
void tgd_state_release(tgd_state *state);

/* driver_compat.c */
PyObject *tgd_fetch_raised(void); /* the raised exception with its traceback; clears the error */
void tgd_restore_raised(PyObject *exception);
int tgd_refers_to(PyObject *weak_reference, PyObject *object);
Py_ssize_t tgd_find_vars(void);
static inline void *tgd_context_vars(const tgd_state *state, PyObject *context)
{
    return *(void **)((char *)context + state->vars_at);
}

/* driver_current.c: which task asyncio calls the current one */
typedef struct tgd_scope {
    PyObject *previous; /* strong: the current task before; NULL for none */
    PyObject *seat;     /* strong: the side's seat before */
} tgd_scope;
int tgd_current_enter(tgd_state *state, PyObject *loop, PyObject *task, PyObject **previous);
void tgd_current_leave(tgd_state *state, PyObject *loop, PyObject *previous); /* steals */
int tgd_seat_enter(tgd_side *side, tgd_scope *scope);
void tgd_seat_leave(tgd_side *side, tgd_scope *scope);
int tgd_seat_renew(tgd_side *side);

/* driver_side.c */
int tgd_side_types(PyObject *module, tgd_state *state);
tgd_side *tgd_side_of(tgd_state *state, PyObject *loop); /* new reference */
PyObject *tgd_side_task(tgd_side *side);                  /* an idle task: spare or new */
void tgd_side_recycle(tgd_side *side, PyObject *task);    /* steals an idle task */
int tgd_side_next_turn(tgd_side *side, PyObject *task);   /* steps it again in the loop's next turn */
void tgd_side_line_up(tgd_side *side, PyObject *task);    /* steals: at the end of the line for the turn */
PyObject *tgd_side_turn(tgd_side *side);                  /* a turn now, unless one is coming: None, or NULL with an error */

/* driver_task.c, driver_task_methods.c, driver_waiting.c */
int tgd_task_type(PyObject *module, tgd_state *state);
int tgd_waiting_type(PyObject *module, tgd_state *state);
extern PyMethodDef tgd_task_methods[];
extern PyGetSetDef tgd_task_attributes[];
PyObject *tgd_task_new_idle(tgd_side *side);
int tgd_task_cancel(PyObject *task, tgd_fields *fields, PyObject *message);
PyObject *tgd_task_cancelled_error(PyObject *task, tgd_fields *fields);
PyObject *tgd_task_await(PyObject *task);
PyObject *tgd_task_result(PyObject *task, PyObject *unused);
void tgd_task_reset(tgd_fields *fields);

/* driver_timer.c */
uint64_t tgd_now_ns(void);                                          /* CLOCK_MONOTONIC */
int tgd_timer_open(tgd_side *side, PyMethodDef *on_time);           /* calls it with the side; -1: there is none, no error set */
int tgd_timer_set(int fd, uint64_t at_ns, uint64_t every_ns);       /* every_ns 0: once. -1: it could not be set */
int tgd_timer_expired(int fd);                                      /* since the last time this was asked */
void tgd_timer_close(tgd_side *side, int *fd);

/* driver_beat.c */
void tgd_beat_note_end(tgd_side *side);
void tgd_beat_stop(tgd_side *side);

/* driver_nap.c */
int tgd_nap_type(PyObject *module, tgd_state *state);
int tgd_nap_begin(PyObject *task, tgd_fields *fields, PyObject *nap);
int tgd_nap_interrupt(tgd_fields *fields);
void tgd_naps_rest(tgd_side *side);
void tgd_naps_drop(tgd_side *side);

/* driver_step.c */
int tgd_task_step(PyObject *task, tgd_fields *fields, int enter_context);
enum tg_step tgd_first_step(tgd_side *side, PyObject *coro, PyObject *context, const struct tg_driver_calls *calls, void *owner,
                            uint64_t token, PyObject **out);

/* driver_finish.c */
int tgd_task_exposed(PyObject *task, const tgd_fields *fields, Py_ssize_t known_references);
PyObject *tgd_task_outcome(tgd_fields *fields, PySendResult how, PyObject *result, int *raised); /* steals result */
int tgd_task_publish(PyObject *task, tgd_fields *fields, PyObject *outcome, int raised);
int tgd_task_end(PyObject *task, tgd_fields *fields, PySendResult how, PyObject *result); /* steals result */
int tgd_is_fatal(PyObject *exception);

/* driver_wakeup.c */
int tgd_wakeup_type(PyObject *module, tgd_state *state);
int tgd_task_wait_for(PyObject *task, tgd_fields *fields, PyObject *yielded); /* steals what the coroutine yielded */
int tgd_task_step_soon(PyObject *task, tgd_fields *fields);

/* driver_python.c: the driver as Python sees it, for its tests */
int tgd_driver_type(PyObject *module, tgd_state *state);

/* gather.c */
int tgd_gather_type(PyObject *module, tgd_state *state);

#endif
