/* culprit.c - says in the crash journal which item ends the process, when the thread that runs it is the one that does.
 *
 * Signal handlers know nothing but their thread and what is static: hence the only statics of this folder. The handler
 * writes one word into the mapped journal and leaves the rest to whoever was there before: faulthandler shows the
 * traceback, and the default action ends the process. */
#include "state.h"

#include <signal.h>
#include <unistd.h>

/* initial-exec: a first look from a signal handler must not allocate. */
_Thread_local struct tg_journal_slot *tg_running_slot __attribute__((tls_model("initial-exec")));

static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
#define SIGNALS (sizeof signals / sizeof signals[0])
static struct sigaction before[SIGNALS];
static pid_t watched_pid;

static void blame(void)
{
    /* A forked child shares the journal, and what ends it does not end its parent. */
    if (tg_running_slot != NULL && getpid() == watched_pid) {
        tg_journal_blame(tg_running_slot);
    }
}

static void on_fatal(int number)
{
    blame();
    for (size_t i = 0; i < SIGNALS; i++) {
        if (signals[i] == number) {
            sigaction(number, &before[i], NULL);
        }
    }
    raise(number); /* delivered at once: SA_NODEFER */
}

PyObject *tg_name_culprits(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    if (watched_pid == getpid()) {
        Py_RETURN_NONE;
    }
    struct sigaction action = {.sa_handler = on_fatal, .sa_flags = SA_NODEFER | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < SIGNALS; i++) {
        struct sigaction found;
        if (sigaction(signals[i], &action, &found) != 0) {
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        if (found.sa_handler != on_fatal) { /* else a forked child: its parent put both there */
            before[i] = found;
        }
    }
    watched_pid = getpid();
    Py_RETURN_NONE;
}

PyObject *tg_blame(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    blame();
    Py_RETURN_NONE;
}
