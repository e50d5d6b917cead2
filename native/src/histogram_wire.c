/* histogram_wire.c - the wire form of histograms, and a decoder that may be given any bytes.
 *
 *   "TGH" version(1)  then LEB128 numbers, each at most 10 bytes:
 *   count sum min max n_used, then n_used times (gap, bucket count), gap = index - previous index (the first: index + 1)
 *
 * Canonical: gaps and counts are positive, counts add up to `count`, the first and last bucket are those of min and max.
 */
#include <string.h>

#include "tidegate/histogram.h"

enum { WIRE_VERSION = 1, HEADER = 4 };
static const unsigned char magic[3] = {'T', 'G', 'H'};

struct writer {
    unsigned char *at;
    unsigned char *end; /* NULL: only count */
    size_t size;
};

static void put(struct writer *w, uint64_t value)
{
    do {
        unsigned char byte = value & 0x7f;
        value >>= 7;
        if (w->end != NULL && w->at < w->end) {
            *w->at++ = value != 0 ? byte | 0x80 : byte;
        }
        w->size++;
    } while (value != 0);
}

static uint32_t used_buckets(const struct tg_histogram *histogram)
{
    uint32_t n = 0, cursor = 0;
    while (tg_histogram_next(histogram, &cursor, NULL, NULL, NULL)) {
        n++;
    }
    return n;
}

static void write_body(struct writer *w, const struct tg_histogram *histogram)
{
    put(w, histogram->count);
    put(w, histogram->sum);
    put(w, histogram->min);
    put(w, histogram->max);
    put(w, used_buckets(histogram));
    uint32_t cursor = 0, previous = 0;
    uint64_t count;
    while (tg_histogram_next(histogram, &cursor, NULL, NULL, &count)) {
        put(w, cursor - previous); /* cursor is index + 1 */
        put(w, count);
        previous = cursor;
    }
}

size_t tg_histogram_encoded_size(const struct tg_histogram *histogram)
{
    struct writer w = {NULL, NULL, HEADER};
    write_body(&w, histogram);
    return w.size;
}

tg_status tg_histogram_encode(const struct tg_histogram *histogram, void *buffer, size_t capacity, size_t *written)
{
    size_t size = tg_histogram_encoded_size(histogram);
    if (size > capacity) {
        return TG_NOSPACE;
    }
    unsigned char *bytes = buffer;
    memcpy(bytes, magic, sizeof magic);
    bytes[3] = WIRE_VERSION;
    struct writer w = {bytes + HEADER, bytes + capacity, HEADER};
    write_body(&w, histogram);
    *written = size;
    return TG_OK;
}

struct reader {
    const unsigned char *at;
    const unsigned char *end;
};

/* False at the end of the bytes, and for a number that does not fit or is not in its shortest form. */
static int get(struct reader *r, uint64_t *value)
{
    uint64_t result = 0;
    for (unsigned shift = 0; shift < 64 && r->at < r->end; shift += 7) {
        unsigned char byte = *r->at++;
        if (shift == 63 && byte > 1) {
            return 0;
        }
        result |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            *value = result;
            return byte != 0 || shift == 0;
        }
    }
    return 0;
}

static int read_buckets(struct reader *r, struct tg_histogram *histogram, uint64_t n_used)
{
    uint64_t position = 0, total = 0, gap, count;
    uint64_t lowest = TG_HISTOGRAM_BUCKETS;
    for (uint64_t i = 0; i < n_used; i++) {
        if (!get(r, &gap) || !get(r, &count) || gap == 0 || count == 0 || gap > TG_HISTOGRAM_BUCKETS - position ||
            __builtin_add_overflow(total, count, &total)) {
            return 0;
        }
        position += gap;
        histogram->buckets[position - 1] = count;
        if (i == 0) {
            lowest = position - 1;
        }
    }
    return total == histogram->count && r->at == r->end &&
           (n_used == 0 || (lowest == tg_histogram_index(histogram->min) &&
                            position - 1 == tg_histogram_index(histogram->max)));
}

static int read_body(struct reader *r, struct tg_histogram *histogram)
{
    uint64_t n_used;
    if (!get(r, &histogram->count) || !get(r, &histogram->sum) || !get(r, &histogram->min) ||
        !get(r, &histogram->max) || !get(r, &n_used) || n_used > TG_HISTOGRAM_BUCKETS) {
        return 0;
    }
    if (histogram->count == 0) {
        return n_used == 0 && histogram->sum == 0 && histogram->min == UINT64_MAX && histogram->max == 0 &&
               r->at == r->end;
    }
    return n_used != 0 && histogram->min <= histogram->max && read_buckets(r, histogram, n_used);
}

tg_status tg_histogram_decode(struct tg_histogram *histogram, const void *bytes, size_t size)
{
    tg_histogram_init(histogram);
    const unsigned char *data = bytes;
    if (size < HEADER || memcmp(data, magic, sizeof magic) != 0) {
        return TG_CORRUPT;
    }
    if (data[3] != WIRE_VERSION) {
        return TG_VERSION;
    }
    struct reader r = {data + HEADER, data + size};
    if (!read_body(&r, histogram)) {
        tg_histogram_init(histogram);
        return TG_CORRUPT;
    }
    return TG_OK;
}
