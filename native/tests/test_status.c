/* Every code has a name and a message. */
#include "check.h"
#include "tidegate/tidegate.h"

static void every_status_has_a_name_and_a_message(void)
{
#define X(name, code, message)                             \
    CHECK(strcmp(tg_status_name(TG_##name), #name) == 0);  \
    CHECK(strcmp(tg_status_message(code), message) == 0);
    TG_STATUS_MAP(X)
#undef X
    CHECK(strcmp(tg_status_name(-1000), "UNKNOWN") == 0);
    CHECK(tg_status_message(7)[0] != 0);
}

static void outcomes_reasons_and_classes_have_names(void)
{
    CHECK(strcmp(tg_outcome_name(TG_OUTCOME_TIMED_OUT), "timed_out") == 0);
    CHECK(strcmp(tg_reason_name(TG_REASON_BUDGET), "retry_budget_spent") == 0);
    CHECK(strcmp(tg_class_name(TG_CLASS_BACKOFF), "backing_off") == 0);
    CHECK(strcmp(tg_outcome_name(99), "unknown") == 0);
}

static void the_version_is_the_headers(void)
{
    char text[32];
    snprintf(text, sizeof text, "%d.%d", TG_VERSION_MAJOR, TG_VERSION_MINOR);
    CHECK(strcmp(tg_version(), text) == 0);
}

RUN(TEST(every_status_has_a_name_and_a_message), TEST(outcomes_reasons_and_classes_have_names),
    TEST(the_version_is_the_headers))
