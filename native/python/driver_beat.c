/* driver_beat.c - keeps the loop's timers punctual while very many tasks end.
 *
 * A loop that has nothing to do sleeps in epoll, in whole milliseconds: rounded up (asyncio), or counted from a
 * clock of whole milliseconds (libuv). For one timer that does not matter. For a thousand sleeps of 10 ms that follow each other it costs
 * a tenth of the throughput. So while tasks end at more than 5,000 a second, a timerfd wakes the loop every 250 us (about 1 % of
 * a core); when they no longer do, it is taken away. */
#include "driver_internal.h"

#define BEAT_NS 250000
#define QUIET_BEATS 64              /* 16 ms without an end: stop */
#define WINDOW_ENDS 256
#define WINDOW_NS UINT64_C(51200000) /* 256 ends in 51.2 ms are 5,000 a second */

static PyObject *beat(PyObject *self, PyObject *unused)
{
    (void)unused;
    tgd_side *side = (tgd_side *)self;
    if (!tgd_timer_expired(side->beat_fd)) {
        Py_RETURN_NONE;
    }
    side->quiet_beats = side->ends == side->ends_at_beat ? side->quiet_beats + 1 : 0;
    side->ends_at_beat = side->ends;
    if (side->quiet_beats > QUIET_BEATS) {
        tgd_beat_stop(side);
    }
    Py_RETURN_NONE;
}

static PyMethodDef beat_method = {"tidegate_beat", beat, METH_NOARGS, NULL};

/* Without it everything works as well, only less punctually: a loop that cannot watch files is not asked twice. */
static void beat_start(tgd_side *side, uint64_t now_ns)
{
    side->beat_fd = tgd_timer_open(side, &beat_method);
    side->quiet_beats = 0;
    if (side->beat_fd < 0 || tgd_timer_set(side->beat_fd, now_ns + BEAT_NS, BEAT_NS) < 0) {
        side->beat_refused = 1;
        tgd_beat_stop(side);
    }
}

void tgd_beat_stop(tgd_side *side)
{
    tgd_timer_close(side, &side->beat_fd);
}

/* A task of a driver ended by itself (not in a turn of bare yields, which need no timers). */
void tgd_beat_note_end(tgd_side *side)
{
    if (++side->ends % WINDOW_ENDS != 0 || side->beat_fd >= 0 || side->beat_refused) {
        return;
    }
    uint64_t now_ns = tgd_now_ns();
    if (side->window_ns != 0 && now_ns - side->window_ns < WINDOW_NS) {
        beat_start(side, now_ns);
    }
    side->window_ns = now_ns;
}
