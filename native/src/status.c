/* status.c - names and messages for the tables of status.h and item.h. No state. */
#include "tidegate/item.h"
#include "tidegate/status.h"

const char *tg_status_name(int status)
{
    switch (status) {
#define TG__CASE(name, code, message) \
    case code:                        \
        return #name;
        TG_STATUS_MAP(TG__CASE)
#undef TG__CASE
    default:
        return "UNKNOWN";
    }
}

const char *tg_status_message(int status)
{
    switch (status) {
#define TG__CASE(name, code, message) \
    case code:                        \
        return message;
        TG_STATUS_MAP(TG__CASE)
#undef TG__CASE
    default:
        return "unknown status";
    }
}

#define TG__TEXT(name, code, text) \
    case code:                     \
        return text;

const char *tg_outcome_name(int outcome)
{
    switch (outcome) {
        TG_OUTCOME_MAP(TG__TEXT)
    default:
        return "unknown";
    }
}

const char *tg_reason_name(int reason)
{
    switch (reason) {
        TG_REASON_MAP(TG__TEXT)
    default:
        return "unknown";
    }
}

const char *tg_class_name(int class_)
{
    switch (class_) {
        TG_CLASS_MAP(TG__TEXT)
    default:
        return "unknown";
    }
}
