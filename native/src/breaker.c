/* breaker.c - circuit breaker: closed, open, half-open. State of a gate of kind TG_LIMIT_BREAKER. Guarded by core->mutex.
 *
 *   closed --(failures >= ratio of at least min_calls in the window)--> open --(open_ns)--> half-open
 *   half-open --(probes successes)--> closed;  half-open --(one failure)--> open
 *
 * Only probes count while half-open: attempts that started earlier tell of the past.
 */
#include "internal.h"

/* The window is two halves; the older one is forgotten whole, so it covers between half and all of window_ns. */
static void roll_window(struct tg__gate *gate, uint64_t now_ns)
{
    uint64_t half = gate->limit->options.window_ns / 2;
    uint64_t age = now_ns - gate->half_start_ns;
    if (age < half) {
        return;
    }
    bool one_step = age < 2 * half;
    gate->calls[1] = one_step ? gate->calls[0] : 0;
    gate->failures[1] = one_step ? gate->failures[0] : 0;
    gate->calls[0] = gate->failures[0] = 0;
    gate->half_start_ns = one_step ? gate->half_start_ns + half : now_ns;
}

static void set_state(struct tg__gate *gate, enum tg_breaker_state state, uint64_t now_ns)
{
    struct tg_limit_stats *stats = &gate->limit->stats;
    if (gate->state == TG_BREAKER_CLOSED && state != TG_BREAKER_CLOSED) {
        stats->open_now++;
    }
    if (gate->state != TG_BREAKER_CLOSED && state == TG_BREAKER_CLOSED) {
        stats->open_now--;
    }
    gate->state = (uint8_t)state;
    gate->probes_ok = gate->probes_started = 0;
    stats->in_use -= gate->in_use;
    gate->in_use = 0;
    if (state == TG_BREAKER_OPEN) {
        stats->opened++;
        gate->open_until_ns = now_ns + gate->limit->options.open_ns;
    }
    if (state == TG_BREAKER_CLOSED) {
        memset(gate->calls, 0, sizeof gate->calls);
        memset(gate->failures, 0, sizeof gate->failures);
        gate->half_start_ns = now_ns;
    }
}

void tg__breaker_refresh(struct tg__gate *gate, uint64_t now_ns)
{
    if (gate->state == TG_BREAKER_OPEN && now_ns >= gate->open_until_ns) {
        set_state(gate, TG_BREAKER_HALF_OPEN, now_ns);
    }
}

/* A probe that says nothing about the callee (cancelled, or a final failure) leaves its place to another. */
void tg__breaker_unprobe(struct tg__gate *gate)
{
    if (gate->state == TG_BREAKER_HALF_OPEN && gate->in_use != 0) {
        gate->probes_started--;
        gate->in_use--;
        gate->limit->stats.in_use--;
    }
}

static void probe_outcome(struct tg__gate *gate, bool ok, uint64_t now_ns)
{
    if (!ok) {
        set_state(gate, TG_BREAKER_OPEN, now_ns);
        return;
    }
    if (gate->in_use != 0) {
        gate->in_use--;
        gate->limit->stats.in_use--;
    }
    if (++gate->probes_ok >= gate->limit->options.probes) {
        set_state(gate, TG_BREAKER_CLOSED, now_ns);
    }
}

void tg__breaker_outcome(struct tg__gate *gate, enum tg_verdict verdict, bool probe, uint64_t now_ns)
{
    const struct tg_limit_options *options = &gate->limit->options;
    bool counts = verdict != TG_VERDICT_NONE && verdict != TG_VERDICT_FAIL_FINAL && verdict != TG_VERDICT_CANCELLED;
    bool ok = verdict == TG_VERDICT_OK;
    if (gate->state == TG_BREAKER_HALF_OPEN && probe) {
        if (counts) {
            probe_outcome(gate, ok, now_ns);
        } else {
            tg__breaker_unprobe(gate);
        }
        tg__gate_kick(gate, now_ns);
        return;
    }
    if (gate->state != TG_BREAKER_CLOSED || !counts) {
        return;
    }
    roll_window(gate, now_ns);
    gate->calls[0]++;
    gate->failures[0] += !ok;
    uint64_t calls = gate->calls[0] + gate->calls[1];
    uint64_t failures = gate->failures[0] + gate->failures[1];
    if (!ok && calls >= options->min_calls && (double)failures >= options->failure_ratio * (double)calls) {
        set_state(gate, TG_BREAKER_OPEN, now_ns);
    }
}
