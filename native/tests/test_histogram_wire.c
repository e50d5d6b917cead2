/* The wire form: what goes in comes out; what is not canonical is refused. */
#include "check.h"
#include "random.h"
#include "tidegate/histogram.h"

static struct tg_histogram a, b;
static unsigned char bytes[256 * 1024];

static void a_histogram_survives_the_wire(void)
{
    struct tg__random random;
    tg__random_seed(&random, 6);
    for (int round = 0; round < 50; round++) {
        tg_histogram_init(&a);
        for (int i = 0; i < round * 20; i++) {
            tg_histogram_record_many(&a, tg__random_next(&random) >> tg__random_upto(&random, 63),
                                     1 + tg__random_upto(&random, 1000));
        }
        size_t size;
        CHECK_STATUS(tg_histogram_encode(&a, bytes, tg_histogram_encoded_size(&a) - 1, &size), TG_NOSPACE);
        CHECK_OK(tg_histogram_encode(&a, bytes, sizeof bytes, &size));
        CHECK_EQ(size, tg_histogram_encoded_size(&a));
        CHECK_OK(tg_histogram_decode(&b, bytes, size));
        CHECK(memcmp(&a, &b, sizeof a) == 0);
    }
}

static void every_truncation_is_refused(void)
{
    tg_histogram_init(&a);
    for (uint64_t i = 1; i < 1000000; i *= 3) {
        tg_histogram_record_many(&a, i, i);
    }
    size_t size;
    CHECK_OK(tg_histogram_encode(&a, bytes, sizeof bytes, &size));
    for (size_t cut = 0; cut < size; cut++) {
        CHECK_STATUS(tg_histogram_decode(&b, bytes, cut), TG_CORRUPT);
        CHECK_EQ(b.count, 0);
    }
    CHECK_STATUS(tg_histogram_decode(&b, bytes, size + 1), TG_CORRUPT);
    bytes[3] = 9;
    CHECK_STATUS(tg_histogram_decode(&b, bytes, size), TG_VERSION);
}

static void what_decodes_encodes_to_the_same_bytes(void)
{
    static unsigned char again[256 * 1024];
    struct tg__random random;
    tg__random_seed(&random, 7);
    tg_histogram_init(&a);
    tg_histogram_record_many(&a, 5, 3);
    tg_histogram_record_many(&a, 900, 2);
    size_t size, size_again;
    unsigned char original[256];
    CHECK_OK(tg_histogram_encode(&a, original, sizeof original, &size));
    int accepted = 0;
    for (int i = 0; i < 20000; i++) {
        memcpy(bytes, original, size);
        bytes[4 + tg__random_upto(&random, size - 5)] = (unsigned char)tg__random_next(&random);
        if (tg_histogram_decode(&b, bytes, size) == TG_OK) {
            CHECK_OK(tg_histogram_encode(&b, again, sizeof again, &size_again));
            CHECK_EQ(size, size_again);
            CHECK(memcmp(bytes, again, size) == 0);
            accepted++;
        }
    }
    CHECK(accepted > 0);
}

RUN(TEST(a_histogram_survives_the_wire), TEST(every_truncation_is_refused),
    TEST(what_decodes_encodes_to_the_same_bytes))
