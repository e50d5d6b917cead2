/* ambient.c - the context (contextvars) that items run in.
 *
 * Every item is promised a context of its own, with `current item` set in it. A fresh copy for each costs more than many
 * items do, so a context is used again when the item before left it exactly as it was and nobody kept a copy of it. Both
 * can be read off the immutable mapping inside: setting a variable replaces it, copying the context shares it. CPython has
 * no call for that, so the field is read in place, on the versions whose layout is known; the layout is probed when the module
 * starts, and when the probe fails every item simply gets a fresh copy. */
#include "state.h"

#include <string.h>

static void *vars_of(PyObject *context)
{
    return ((struct tg_known_context *)context)->vars;
}

int tg_context_layout_check(struct tg_module_state *state)
{
    state->context_layout_known = 0;
#if PY_VERSION_HEX < 0x030E0000 && !defined(Py_GIL_DISABLED)
    if (PyContext_Type.tp_basicsize < (Py_ssize_t)sizeof(struct tg_known_context)) {
        return 0;
    }
    PyObject *context = PyContext_New();
    if (context == NULL) {
        return -1;
    }
    PyObject *copy = NULL;
    PyObject *vars = vars_of(context);
    if (vars != NULL && strcmp(Py_TYPE(vars)->tp_name, "hamt") == 0) {
        Py_ssize_t before = Py_REFCNT(vars);
        copy = PyContext_Copy(context);
        if (copy == NULL) {
            Py_DECREF(context);
            return -1;
        }
        state->context_layout_known = vars_of(copy) == vars && Py_REFCNT(vars) == before + 1;
    }
    Py_XDECREF(copy);
    Py_DECREF(context);
#endif
    return 0;
}

void tg_ambient_drop(struct tg_ambient *ambient)
{
    if (ambient->context == NULL) {
        return;
    }
    if (ambient->entered && PyContext_Exit(ambient->context) < 0) {
        PyErr_WriteUnraisable(ambient->context);
    }
    ambient->entered = 0;
    Py_CLEAR(ambient->run);
    Py_CLEAR(ambient->context);
    Py_CLEAR(ambient->scope);
}

static ScopeObject *new_scope(struct tg_module_state *state, RunObject *run)
{
    ScopeObject *scope = PyObject_New(ScopeObject, state->scope_type);
    if (scope != NULL) {
        scope->job_id = Py_NewRef(run->job_id);
        scope->first_index = run->first_index;
        scope->position = 0;
        scope->attempt = 0;
    }
    return scope;
}

int tg_ambient_renew(struct tg_module_state *state, struct tg_ambient *ambient, RunObject *run, int enter)
{
    tg_ambient_drop(ambient);
    ambient->context = run->context ? PyContext_Copy(run->context) : PyContext_New();
    ambient->scope = ambient->context ? new_scope(state, run) : NULL;
    if (ambient->scope == NULL || PyContext_Enter(ambient->context) < 0) {
        goto fail;
    }
    ambient->entered = 1;
    PyObject *token = PyContextVar_Set(state->current_var, (PyObject *)ambient->scope);
    if (token == NULL) {
        goto fail;
    }
    Py_DECREF(token);
    ambient->vars = state->context_layout_known ? vars_of(ambient->context) : NULL;
    if (!enter) {
        ambient->entered = 0;
        if (PyContext_Exit(ambient->context) < 0) {
            goto fail;
        }
    }
    ambient->run = (RunObject *)Py_NewRef(run);
    return 0;
fail:
    tg_ambient_drop(ambient);
    return -1;
}
