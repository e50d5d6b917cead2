"""What run.sh checks while the services are up, seen from outside of their network: python check.py COMPOSE_FILE EXAMPLES"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROJECT = os.environ["COMPOSE_PROJECT_NAME"]
LEDGER = f"redis://:{os.environ['VALKEY_PASSWORD']}@127.0.0.1:{os.environ['VALKEY_PORT']}/0"
ITEMS = 3000


def say(text: str) -> None:
    print(f"compose-test: {text}", flush=True)


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def containers(service: str) -> list[str]:
    labels = [f"label=com.docker.compose.project={PROJECT}", f"label=com.docker.compose.service={service}"]
    return docker("ps", "-q", *(word for label in labels for word in ("--filter", label))).split()


def tidegate(examples: Path, *arguments: str) -> str:
    environment = {**os.environ, "TIDEGATE_URL": LEDGER}
    command = [sys.executable, "-m", "tidegate", *arguments]
    ended = subprocess.run(command, cwd=examples, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{' '.join(arguments)}: {ended.stdout}{ended.stderr}"
    return ended.stdout


def get(port: str, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{os.environ[port]}{path}", timeout=5) as answer:
        return str(answer.read().decode())


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 180) -> Any:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if found := condition():
                return found
        except (OSError, AssertionError, KeyError, ValueError) as error:
            found = error
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s:g} s: {found}"
        time.sleep(0.5)


def healthy(service: str) -> bool:
    found = containers(service)
    return bool(found) and all(docker("inspect", "-f", "{{.State.Health.Status}}", one) == "healthy" for one in found)


def metric(text: str, name: str) -> float:
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


def main() -> None:
    examples = Path(sys.argv[2])
    wait_until(lambda: len(containers("worker")) == 4, "four worker containers")
    wait_until(
        lambda: metric(get("COLLECTOR_PORT", "/metrics"), "tidegate_workers") == 4, "the collector sees 4 workers"
    )
    say("4 worker containers are at work")
    for service in ("valkey", "collector", "prometheus", "worker"):
        wait_until(lambda name=service: healthy(name), f"{service} is healthy")
        say(f"{service} is healthy")
    facts = docker("inspect", "-f", "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}}", containers("worker")[0])
    assert facts == "tidegate true", facts

    numbers = Path(os.environ.get("TMPDIR", "/tmp")) / f"{PROJECT}.txt"
    numbers.write_text("\n".join(map(str, range(ITEMS))))
    try:
        submitted = json.loads(
            tidegate(examples, "submit", "checksums:digest", str(numbers), "--batch-size", "25", "--json")
        )
    finally:
        numbers.unlink()
    job = submitted["job"]

    def report() -> dict[str, Any]:
        return dict(json.loads(tidegate(examples, "report", job, "--json")))

    wait_until(lambda: report()["items"]["succeeded"] > ITEMS // 20, "the job is under way")
    victim = containers("worker")[0]
    docker("kill", victim)
    done = report()["items"]["succeeded"]
    assert done < ITEMS, "the job ended before a worker could be killed"
    say(f"killed one worker container after {done:,} of {ITEMS:,} items")
    wait_until(lambda: report()["job"]["ended"], "the job ends", 400)
    found = report()
    assert found["items"]["succeeded"] == found["items"]["total"] == ITEMS, found["items"]
    say(f"all {ITEMS:,} items succeeded once; lost leases: {found['items'].get('lost_leases', found.get('batches'))}")
    assert "tidegate_items_total" in get("COLLECTOR_PORT", "/metrics")

    def scraped() -> bool:
        answer = json.loads(get("PROMETHEUS_PORT", "/api/v1/query?query=sum(tidegate_items_total)"))
        return bool(answer["data"]["result"]) and float(answer["data"]["result"][0]["value"][1]) > 0

    wait_until(scraped, "Prometheus has scraped the collector")
    rules = json.loads(get("PROMETHEUS_PORT", "/api/v1/rules"))["data"]["groups"]
    assert sum(len(group["rules"]) for group in rules) > 3, rules
    say("Prometheus has the metrics and the alerts")
    if containers("grafana"):
        wait_until(lambda: healthy("grafana"), "grafana is healthy")


if __name__ == "__main__":
    main()
