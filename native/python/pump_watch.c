/* pump_watch.c - the steps of coroutines that had suspended, as the watchdog sees them: pump_watch.h. */
#include "pump_watch.h"

void tg_pump_stepping(void *owner, uint64_t token, enum tg_step_moment moment)
{
    PumpObject *self = owner;
    if (moment == TG_FIRST_STEP_ENDS) {
        if (self->first_watched) {
            self->first_watched = 0;
            self->first_interrupted = tg_watch_end(self);
        }
        return;
    }
    struct tg_flight *flight = (struct tg_flight *)(uintptr_t)token;
    const LaneObject *lane = flight->run->lane;
    tg_running_slot = moment == TG_STEP_BEGINS ? tg_slot_at(self->core, flight->slot) : NULL;
    if ((lane->timeout_ns == 0 && lane->hard_ns == 0) || self->worker == NULL) {
        return;
    }
    if (moment == TG_STEP_BEGINS) {
        tg_watch_open(self);
        /* One that was cancelled for its timeout has time to clean up. */
        tg_watch_begin(self, lane, flight->timed_out ? tg_core_now(self->core->core) : flight->start_ns);
        return;
    }
    int interrupted = tg_watch_end(self);
    tg_watch_close(self);
    if (interrupted) {
        tg_flight_interrupted(self, flight);
    }
}
