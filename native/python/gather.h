/* gather.h - what gather.c and gather_future.c share: the future that tidegate.gather() answers. */
#ifndef TIDEGATE_PY_GATHER_H
#define TIDEGATE_PY_GATHER_H

#include "driver_internal.h"

/* Behind the fields of asyncio.Future, of which it is a subclass (see driver_internal.h). */
typedef struct tgd_gathering {
    tgd_state *state;
    PyObject **children;  /* those that have not ended (strong); NULL otherwise */
    PyObject *results;    /* list; holes while children run */
    Py_ssize_t *same_as;  /* position of the first argument that is the same object; NULL when all differ */
    PyObject *cancel_message;
    Py_ssize_t n;
    Py_ssize_t pending;
    int return_exceptions;
    int cancel_requested;
} tgd_gathering;

extern Py_ssize_t tgd_gathering_at; /* a constant of the Python in use */

static inline tgd_gathering *tgd_gathering_of(PyObject *future)
{
    return (tgd_gathering *)((char *)future + tgd_gathering_at);
}

PyObject *tgd_gathering_new(tgd_state *state, PyObject *init_kwargs, Py_ssize_t n, int return_exceptions);
/* One child ended; `outcome` is borrowed. 0, or -1 with an error. */
int tgd_gathering_child(PyObject *future, Py_ssize_t index, PyObject *outcome, int raised);
/* All children were started: answers at once if none is pending. */
int tgd_gathering_settle(PyObject *future);
int tgd_gather_function(PyObject *module);

#endif
