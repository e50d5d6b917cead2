// The dashboard: history once, then an event a second. Text from outside is only ever set as textContent.
"use strict";
(function () {
  const COLOURS = { succeeded: "#2f9e6e", failed: "#d9485f", retried: "#e08e1b", limit: "#8a93a3", line: "#3d7edb" };
  const CLASSES = [
    ["running", "running", "#2f9e6e"],
    ["queued", "queued", "#6c8ebf"],
    ["limited", "limit", "#e08e1b"],
    ["backoff", "retry", "#d9485f"],
    ["settling", "commit", "#9b5de5"],
  ];
  const OUTCOMES = ["succeeded", "failed", "timed_out", "crashed", "cancelled"];
  const SVG = "http://www.w3.org/2000/svg";
  const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

  function byId(id) {
    return document.getElementById(id);
  }

  function put(id, text) {
    byId(id).textContent = text;
  }

  function bytes(value) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let at = 0;
    while (value >= 1024 && at < units.length - 1) {
      value /= 1024;
      at += 1;
    }
    return number.format(value) + " " + units[at];
  }

  function percent(share) {
    return share === null ? "—" : number.format(100 * share) + " %";
  }

  function showNow(view) {
    put("rate", number.format(view.last_minute.items_per_s));
    put("success", percent(view.last_minute.success_rate));
    put("running", number.format(view.now.running));
    put("running-of", "items running, of " + number.format(view.now.concurrency) + " allowed");
    put("workers", number.format(view.now.workers));
    const idle = view.last_minute.idle_share;
    put("slots", "worker processes" + (idle === null ? "" : ", slots " + percent(idle) + " idle"));
    put("ready", number.format(view.ready_batches));
    put("oldest", "batches ready" + (view.oldest_ready_s ? ", the oldest for " + number.format(view.oldest_ready_s) + " s" : ""));
    put("memory", bytes(view.now.memory_bytes));
    put("trouble", view.trouble);
    byId("trouble").classList.toggle("hidden", !view.trouble);
  }

  function line(name, x, y, colour, more) {
    return Object.assign({ type: "scatter", mode: "lines", name: name, x: x, y: y, line: { color: colour, width: 2 } }, more);
  }

  function time(title, unit, extra) {
    const axis = Object.assign({ rangemode: "tozero", title: { text: unit } }, extra);
    return { title: { text: title }, xaxis: { type: "date" }, yaxis: axis, showlegend: true, hovermode: "x unified" };
  }

  function smooth(values, width) {
    // Workers report once a second, not at the same moment: a short moving average shows the rate and not the beat.
    return values.map(function (_, at) {
      const part = values.slice(Math.max(0, at - width + 1), at + 1);
      return part.reduce((sum, value) => sum + value, 0) / part.length;
    });
  }

  function showHistory(history) {
    const at = history.at_ms.map((ms) => new Date(ms));
    tidegate.draw(byId("chart-throughput"), {
      data: [
        line("succeeded", at, smooth(history.succeeded_per_s, 5), COLOURS.succeeded),
        line("not succeeded", at, smooth(history.unsuccessful_per_s, 5), COLOURS.failed),
        line("retried", at, smooth(history.retried_per_s, 5), COLOURS.retried),
      ],
      layout: time("Throughput", "items a second"),
    });
    tidegate.draw(byId("chart-classes"), {
      data: CLASSES.map(function (entry) {
        return line(entry[1], at, smooth(history[entry[0]], 5), entry[2], { stackgroup: "one", line: { width: 0 }, fillcolor: entry[2] });
      }),
      layout: time("Where items' time goes", "items at once"),
    });
    tidegate.draw(byId("chart-running"), {
      data: [
        line("running", at, smooth(history.busy, 5), COLOURS.line),
        line("allowed", at, history.concurrency, COLOURS.limit, { line: { color: COLOURS.limit, dash: "dot", width: 1.5, shape: "hv" } }),
      ],
      layout: time("Running at once", "items"),
    });
    tidegate.draw(byId("chart-memory"), {
      data: [line("all workers", at, history.memory_bytes.map((value) => value / 1048576), COLOURS.line, { fill: "tozeroy", line: { color: COLOURS.line, width: 2 } })],
      layout: time("Memory", "MiB"),
    });
  }

  function cell(row, text, kind) {
    const made = row.insertCell();
    made.textContent = text;
    if (kind) {
      made.className = kind;
    }
    return made;
  }

  function bar(job) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 1000 8");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", Math.round(job.total ? (100 * job.done) / job.total : 0) + " % done");
    let x = 0;
    for (const outcome of OUTCOMES) {
      const width = job.total ? (1000 * job.outcomes[outcome]) / job.total : 0;
      const part = document.createElementNS(SVG, "rect");
      part.setAttribute("x", String(x));
      part.setAttribute("width", String(width));
      part.setAttribute("height", "8");
      part.setAttribute("fill", tidegate.colour(outcome));
      svg.appendChild(part);
      x += width;
    }
    return svg;
  }

  function jobRow(job) {
    const row = document.createElement("tr");
    const first = cell(row, "");
    const link = document.createElement("a");
    link.href = "/jobs/" + encodeURIComponent(job.id);
    link.textContent = job.task;
    const id = document.createElement("span");
    id.className = "sub";
    id.textContent = job.id + (job.reason ? " · " + job.reason : "");
    first.append(link, id);
    cell(row, "", "wide").appendChild(bar(job));
    cell(row, number.format(job.done) + " of " + number.format(job.total));
    cell(row, number.format(job.done - job.outcomes.succeeded));
    cell(row, number.format(job.retries));
    const state = document.createElement("span");
    state.className = "state state-" + job.state;
    state.textContent = job.paused && !job.ended ? "paused" : job.cancelling ? "cancelling" : job.state;
    cell(row, "").appendChild(state);
    return row;
  }

  function showJobs(jobs) {
    if (jobs.length) {
      byId("jobs").replaceChildren.apply(byId("jobs"), jobs.map(jobRow));
    }
  }

  function live(on, text) {
    byId("live").className = "live " + (on ? "on" : "off");
    put("live", text);
  }

  async function refreshHistory() {
    const answer = await fetch("/api/overview?window=5m");
    if (answer.ok) {
      showHistory((await answer.json()).history);
    }
  }

  let beats = 0;
  const events = new EventSource("/api/events");
  events.addEventListener("overview", function (event) {
    const view = JSON.parse(event.data);
    live(true, "live");
    showNow(view);
    showJobs(view.job_rows);
    beats += 1;
    if (beats % 2 === 1 && !document.hidden) {
      refreshHistory();
    }
  });
  events.addEventListener("error", function () {
    live(false, "the collector does not answer");
  });
})();
