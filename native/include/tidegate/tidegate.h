/* tidegate.h - the whole public interface of the core. */
#ifndef TIDEGATE_TIDEGATE_H
#define TIDEGATE_TIDEGATE_H

#include "tidegate/alloc.h"
#include "tidegate/clock.h"
#include "tidegate/core.h"
#include "tidegate/cpool.h"
#include "tidegate/group.h"
#include "tidegate/histogram.h"
#include "tidegate/item.h"
#include "tidegate/journal.h"
#include "tidegate/lane.h"
#include "tidegate/limit.h"
#include "tidegate/outlog.h"
#include "tidegate/run.h"
#include "tidegate/simulate.h"
#include "tidegate/status.h"

#endif
