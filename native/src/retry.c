/* retry.c - the arithmetic of retries: backoff and budget. Guarded by core->mutex. */
#include "internal.h"

/* Budget tokens are fractions; "at least one" must not fail for 0.1 added ten times. */
static const double one_token = 1.0 - 1e-9;

static uint64_t scale(uint64_t base_ns, double factor, uint32_t attempt, uint64_t cap_ns)
{
    double delay = (double)base_ns;
    /* By hand and not by pow(): the same figures on every libm, and the loop ends at the cap. */
    for (uint32_t i = 1; i < attempt && delay < (double)cap_ns; i++) {
        delay *= factor;
    }
    return delay >= (double)cap_ns ? cap_ns : (uint64_t)delay;
}

uint64_t tg__backoff(const struct tg_retry *retry, struct tg__random *random, uint32_t attempt, uint64_t previous_ns)
{
    /* Without a cap delays still end at about 146 years, so that now + delay cannot overflow. */
    uint64_t cap = retry->cap_ns != 0 ? retry->cap_ns : UINT64_MAX / 4;
    double factor = retry->factor >= 1 ? retry->factor : 2;
    if (retry->jitter == TG_JITTER_DECORRELATED) {
        uint64_t top = previous_ns > cap / 3 ? cap : previous_ns * 3;
        uint64_t base = retry->base_ns > cap ? cap : retry->base_ns;
        top = top < base ? base : top;
        return base + tg__random_upto(random, top - base);
    }
    uint64_t delay = scale(retry->base_ns, factor, attempt, cap);
    switch (retry->jitter) {
    case TG_JITTER_FULL:
        return tg__random_upto(random, delay);
    case TG_JITTER_EQUAL:
        return delay - delay / 2 + tg__random_upto(random, delay / 2);
    default:
        return delay;
    }
}

bool tg__retry_valid(const struct tg_retry *retry)
{
    return retry->attempts <= UINT16_MAX && (unsigned)retry->jitter <= TG_JITTER_DECORRELATED &&
           retry->factor >= 0 && retry->factor < 1e9 && retry->budget_ratio >= 0 && retry->budget_ratio <= 1e6 &&
           retry->budget_floor_per_s >= 0 && retry->budget_floor_per_s <= 1e9 && retry->budget_cap >= 0 &&
           retry->budget_cap <= 1e15 && retry->base_ns <= UINT64_MAX / 4 && retry->cap_ns <= UINT64_MAX / 4 &&
           retry->deadline_ns <= UINT64_MAX / 4;
}

static bool has_budget(const struct tg_retry *retry)
{
    return retry->budget_ratio > 0 || retry->budget_floor_per_s > 0;
}

static double budget_cap(const struct tg_retry *retry)
{
    if (retry->budget_cap > 0) {
        return retry->budget_cap;
    }
    double cap = retry->budget_floor_per_s * 10;
    return cap < 10 ? 10 : cap;
}

double tg__budget_now(const struct tg_lane *lane, uint64_t now_ns)
{
    const struct tg_retry *retry = &lane->retry;
    if (!has_budget(retry)) {
        return 0;
    }
    double elapsed_s = (double)(now_ns - lane->budget_at_ns) * 1e-9;
    double tokens = lane->budget + elapsed_s * retry->budget_floor_per_s;
    double cap = budget_cap(retry);
    return tokens > cap ? cap : tokens;
}

void tg__budget_start(struct tg_lane *lane, uint64_t now_ns)
{
    lane->budget = budget_cap(&lane->retry);
    lane->budget_at_ns = now_ns;
}

bool tg__budget_take(struct tg_lane *lane, uint64_t now_ns)
{
    if (!has_budget(&lane->retry)) {
        return true;
    }
    lane->budget = tg__budget_now(lane, now_ns);
    lane->budget_at_ns = now_ns;
    if (lane->budget < one_token) {
        return false;
    }
    lane->budget -= 1;
    return true;
}

void tg__budget_earn(struct tg_lane *lane, uint64_t successes)
{
    if (lane->retry.budget_ratio > 0) {
        double cap = budget_cap(&lane->retry);
        double tokens = lane->budget + (double)successes * lane->retry.budget_ratio;
        lane->budget = tokens > cap ? cap : tokens;
    }
}
