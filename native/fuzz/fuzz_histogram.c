/* fuzz_histogram.c - any bytes into the histogram decoder; what it accepts must be canonical and safe to use. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tidegate/histogram.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tg_histogram histogram, sum;
    if (tg_histogram_decode(&histogram, data, size) != TG_OK) {
        if (histogram.count != 0) {
            abort();
        }
        return 0;
    }
    unsigned char *again = malloc(size != 0 ? size : 1);
    size_t written = 0;
    if (again == NULL) {
        return 0;
    }
    if (tg_histogram_encode(&histogram, again, size, &written) != TG_OK || written != size ||
        memcmp(again, data, size) != 0) {
        abort();
    }
    free(again);
    uint64_t median = tg_histogram_quantile(&histogram, 0.5);
    if (histogram.count != 0 && (median < histogram.min || median > histogram.max)) {
        abort();
    }
    tg_histogram_init(&sum);
    tg_histogram_merge(&sum, &histogram);
    tg_histogram_reset(&sum);
    return 0;
}
