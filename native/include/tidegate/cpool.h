/* cpool.h - threads that run items of TG_KIND_C lanes: C functions over buffers, on all cores, with no GIL.
 *
 * A whole array is submitted as one call; pool threads claim stretches of it through the lane (its concurrency, limits,
 * priority and timeouts of breakers apply) and time every element. Only an element that failed and is to be retried, or
 * that failed for good, becomes an item record of its own. A function cannot be interrupted: an element that returns after
 * the lane's timeout has timed out, and is retried as the policy says of timeouts.
 */
#ifndef TIDEGATE_CPOOL_H
#define TIDEGATE_CPOOL_H

#include <stddef.h>
#include <stdint.h>

#include "tidegate/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Element of doubles: never fails. */
typedef double (*tg_double_function)(double value);
/* Element of bytes: writes at most out_cap bytes, says how many in *out_len. 0 is success; a positive number is a failure
 * that may be retried, a negative one a final failure. */
typedef int (*tg_bytes_function)(const void *in, size_t in_len, void *out, size_t out_cap, size_t *out_len);

/* How an element ended. `outcome` is 0 until then. */
struct tg_ccall_end {
    uint64_t run_ns;   /* inside the function, all attempts */
    uint64_t wait_ns;  /* queued, limited, backing off */
    uint32_t attempts;
    uint8_t outcome;   /* enum tg_outcome */
    uint8_t reason;    /* enum tg_reason */
};

struct tg_ccall {
    size_t n;                    /* elements; the group's total grows by n */
    tg_double_function double_function; /* exactly one of the two functions is set */
    tg_bytes_function bytes_function;
    /* double_function: in[n] and out[n] (may be the same array, unless timeouts are retried). */
    const double *in_doubles;
    double *out_doubles;
    /* bytes_function: element i is in + in_offsets[i] .. in + in_offsets[i + 1] (n + 1 offsets);
     * its output goes to out + i * out_stride, capacity out_stride, length to out_lens[i]. */
    const unsigned char *in;
    const size_t *in_offsets;
    unsigned char *out;
    size_t out_stride;
    size_t *out_lens;
    /* Last return value of each element, or NULL. Elements cancelled before they started keep what was there. */
    int *statuses;
    /* How each element ended, or NULL. Zero it before. */
    struct tg_ccall_end *ends;
    uint64_t hard_ns; /* tg_cpool_due tells when an element will have run for so long; 0: never */
};

/* Submits the call to the group's lane, which must be of TG_KIND_C. *call is copied; the buffers must live until the group
 * is done. TG_FULL when the lane has no room for all n: nothing is submitted. Failures are settled by the pool itself:
 * tg_core_take_settled never hands them out. Keyed limits are not allowed on such lanes (TG_INVALID). */
tg_status tg_core_submit_ccall(struct tg_core *core, struct tg_group *group, const struct tg_ccall *call, uint64_t now_ns);

struct tg_cpool;

/* `threads` threads (at least 1) that serve TG_KIND_C lanes of the core until tg_cpool_destroy. Signals are
 * blocked in them. */
tg_status tg_cpool_create(struct tg_core *core, uint32_t threads, struct tg_cpool **out);
/* At least that many threads from now on; those that are there stay. TG_SYSTEM: fewer could be started, and they serve.
 * Not from two threads at once. */
tg_status tg_cpool_grow(struct tg_cpool *pool, uint32_t threads);
/* Finishes the elements that run, stops and joins the threads. tg_cpool_due may be called all the while. */
tg_status tg_cpool_stop(struct tg_cpool *pool);
/* Stops the pool, unless that was done, and frees it. Call before tg_core_destroy; safe in a forked child, where
 * it frees nothing and answers TG_FORKED. */
tg_status tg_cpool_destroy(struct tg_cpool *pool);
/* When the first of the elements that run now is past its call's hard_ns; TG_NEVER: none has any. Takes no lock. */
uint64_t tg_cpool_due(struct tg_cpool *pool);

#ifdef __cplusplus
}
#endif
#endif
