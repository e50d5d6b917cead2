"""The report as plain data: the stable schema that ``--json`` and the collector's API give out. See docs/report.md.

Names carry their units; a value that is not known is null; texts from outside are already safe to show.
"""

from __future__ import annotations

from typing import Any

from tidegate.model.outcome import Outcome
from tidegate.model.plain import visible
from tidegate.model.stats import TIME_CLASSES, Distribution
from tidegate.report.facts import Facts, FailureGroup
from tidegate.report.findings import Finding

#: Raised when a name is removed or changes its meaning; names may be added.
SCHEMA_VERSION = 1

Document = dict[str, Any]


def document(facts: Facts, findings: tuple[Finding, ...]) -> Document:
    """Everything the report says, as dicts, lists, text and numbers."""
    progress = facts.progress
    return {
        "schema_version": SCHEMA_VERSION,
        "job": _job(facts),
        "items": {
            "total": progress.total,
            "done": progress.done,
            "pending": progress.pending,
            **{str(outcome): progress.outcomes.get(outcome, 0) for outcome in Outcome},
            "success_rate": _ratio(progress.outcomes.get(Outcome.SUCCEEDED, 0), progress.done),
            "executions": progress.attempts,
            "retries": progress.retries,
            "per_s": _ratio(progress.done, facts.elapsed_s),
        },
        "batches": {
            "total": progress.batches,
            "done": progress.batches_done,
            "ready": progress.ready_batches,
            "running": progress.running_batches,
            "delayed": progress.delayed_batches,
            "items_per_batch": _number(facts.items_per_batch),
            "lost_leases": progress.lost_leases,
            "stale_refused": progress.stale_refused,
        },
        "times": {name: _times(facts.times.get(name, Distribution())) for name in TIME_CLASSES},
        "errors": _errors(facts),
        "failures": {
            "read": facts.letters_read,
            "cut": facts.letters_cut,
            "groups": [_group(group) for group in facts.groups],
        },
        "concurrency": {
            "average": _number(facts.average_running),
            "efficiency": None if facts.efficiency is None else _number(facts.efficiency),
            "configured_sampled": _number(facts.sampled.concurrency_configured) if facts.sampled.records else None,
            "peak_sampled": facts.sampled.concurrency_peak if facts.sampled.records else None,
            "per_process": facts.spec.concurrency if facts.spec else None,
        },
        "workers_sampled": _workers(facts),
        "findings": [
            {
                "severity": str(finding.severity),
                "code": finding.code,
                "title": finding.title,
                "evidence": finding.evidence,
                "remedy": finding.remedy,
            }
            for finding in findings
        ],
    }


def _job(facts: Facts) -> Document:
    progress, spec = facts.progress, facts.spec
    return {
        "id": visible(progress.job_id, 100),
        "task": visible(progress.task, 300),
        "queue": visible(progress.queue, 100),
        "state": str(progress.state),
        "paused": progress.paused,
        "reason": visible(progress.reason, 500),
        "cut_short": progress.cut_short,
        "ended": progress.ended,
        "created_ms": progress.created_ms or None,
        "started_ms": progress.started_ms or None,
        "finished_ms": progress.finished_ms or None,
        "taken_ms": facts.taken_wall_ms,
        "elapsed_s": facts.elapsed_s,
        "origin": {
            "file": visible(facts.origin.file, 300),
            "line": facts.origin.line,
            "function": visible(facts.origin.function, 200),
            "parent_job": visible(facts.origin.parent_job, 100),
        },
        "policy": {
            "concurrency": spec.concurrency,
            "timeout_s": spec.timeout_s or None,
            "attempts": spec.attempts,
            "limits": [visible(limit, 100) for limit in spec.limits],
            "max_crashes": spec.max_crashes,
        }
        if spec
        else None,
    }


def _times(times: Distribution) -> Document:
    quantiles = {f"p{percent}_s": _seconds(times.quantile_ns(percent / 100), times) for percent in (50, 95, 99)}
    return {
        "count": times.count,
        "sum_s": times.sum_ns / 1e9,
        "mean_s": _seconds(times.mean_ns, times),
        "min_s": _seconds(times.min_ns, times),
        **quantiles,
        "max_s": _seconds(times.max_ns, times),
    }


def _errors(facts: Facts) -> list[Document]:
    total = sum(facts.errors.values())
    ordered = sorted(facts.errors.items(), key=lambda entry: (-entry[1], entry[0]))
    return [
        {"type": visible(kind, 200), "count": count, "share": _ratio(count, total)} for kind, count in ordered[:100]
    ]


def _group(group: FailureGroup) -> Document:
    return {
        "fingerprint": group.fingerprint,
        "error_type": group.error_type,
        "count": group.count,
        "file": group.file,
        "line": group.line or None,
        "function": group.function,
        "traceback": group.traceback,
        "samples": [
            {
                "index": sample.index,
                "outcome": str(sample.outcome),
                "message": sample.message,
                "attempts": sample.attempts,
                "arguments": sample.arguments,
                "run_s": sample.run_ns / 1e9,
                "history": list(sample.history),
            }
            for sample in group.samples
        ],
    }


def _workers(facts: Facts) -> Document:
    sampled = facts.sampled
    return {
        "covered_s": sampled.covered_s,
        "records": sampled.records,
        "missing_records": sampled.missing,
        "idle_share": _number(sampled.idle_share) if sampled.slot_ns else None,
        "limits_waited_for": {visible(name, 100): weight for name, weight in sampled.limit_weights.items()},
        "processes": [
            {
                "worker": visible(process.worker, 100),
                "host": visible(process.host, 100),
                "pid": process.pid,
                "slots": process.slots,
                "memory_bytes": process.memory_bytes,
                "memory_peak_bytes": process.memory_peak_bytes,
                "memory_limit_bytes": process.memory_limit_bytes or None,
                "concurrency": process.concurrency,
                "running_average": _number(process.average_running),
                "running_peak": process.peak_running,
                "idle_share": _number(process.idle_share),
                "cpu_share": _ratio(process.cpu_ns, process.interval_ns),
            }
            for process in sampled.processes
        ],
    }


def _seconds(ns: float, times: Distribution) -> float | None:
    return ns / 1e9 if times.count else None


def _ratio(part: float, whole: float) -> float | None:
    return _number(part / whole) if whole else None


def _number(value: float) -> float:
    return round(value, 6)
