/* scope_type.c - Scope: says inside a context which item runs there. Never handed to user code: see current() in module.c. */
#include "state.h"

static void scope_dealloc(ScopeObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(self->job_id);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyType_Slot scope_slots[] = {
    {Py_tp_dealloc, scope_dealloc},
    {Py_tp_doc, "Which item runs in this context."},
    {0, NULL},
};

PyType_Spec tg_scope_spec = {
    .name = "tidegate.executor._native.Scope",
    .basicsize = sizeof(ScopeObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = scope_slots,
};
