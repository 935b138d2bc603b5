// Is anything wrong, and what happens if...?

import * as chart from "../chart.js";
import { h } from "../dom.js";
import { bytes, count, duration, known, ms, percent, share } from "../format.js";
import { card, eventRow, jobRow, meter, title } from "./parts.js";

const LOOKS = { error: "bad", warning: "warn", info: "none" };

export function enter(rest, draw) {
  chart.showStore();
  chart.refresh(draw);
}

export function after(main, live, draw) {
  chart.after(main, live, draw);
}

export function view(live, draw) {
  const status = live.status;
  if (!status) return [title("Overview"), h("p", { class: "quiet" }, "Waiting for the store's first word")];
  return [
    title("Overview", h("span", { class: "quiet" }, `${status.site} · vmhold ${status.version} · up ${duration(status.uptime_seconds)}`)),
    h("div", { class: "grid" },
      findings(status.health),
      canILose(status.can_i_lose),
      space(status), load(status), latency(live, draw), running(status.jobs), latest(live.events)),
  ];
}

function findings(health) {
  if (!health.findings.length) {
    return card("", null, h("p", { class: "big" }, "All is well ", h("small", {}, `${health.checks} checks pass`)));
  }
  const worst = LOOKS[health.findings[0].severity];
  const rows = health.findings.map((finding) => h("div", { class: "finding" },
    h("span", { class: `pill ${LOOKS[finding.severity]}` }, finding.severity === "error" ? "ERROR" : "WARN"),
    h("div", {},
      h("p", { class: "what" }, `${finding.object}: ${finding.detail}`),
      h("p", { class: "quiet" }, finding.do.length ? `Do: ${finding.do[0]}` : "")),
    h("span", { class: "tools quiet mono small" }, `${finding.code} ${finding.name}`)));
  return card(worst, `${health.findings.length} of ${health.checks} checks need a look`, rows);
}

const answerLook = (now) => (/^(NO|unknown)/i.test(now) ? "bad" : "ok");

function canILose(rows) {
  const row = (one) => h("tr", {},
    h("th", { scope: "row" }, one.what),
    h("td", { "data-label": "Now", class: "nowrap" }, h("span", { class: `pill ${answerLook(one.now) === "bad" && one.normally.toLowerCase() === one.now.toLowerCase() ? "none" : answerLook(one.now)}` }, one.now)),
    h("td", { "data-label": "Normally" }, one.normally),
    h("td", { "data-label": "Why", class: "quiet" }, one.why));
  return card("half", "Can I lose …",
    h("table", { class: "cards" },
      h("thead", {}, h("tr", {}, ["What", "Now", "Normally", "Why"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map(row))));
}

function space(status) {
  const gauges = status.pools.map((pool) => {
    const ratio = share(pool.used_bytes, pool.usable_bytes);
    return [
      h("p", { class: "big" }, percent(ratio), h("small", {}, ` of ${bytes(pool.usable_bytes)} used in ${pool.name}`)),
      meter(`Space used in ${pool.name}`, ratio, ratio >= 0.95 ? "bad" : ratio >= 0.85 ? "warn" : ""),
      h("div", { class: "pair quiet small" },
        h("span", {}, `${bytes(pool.free_bytes)} free`),
        h("span", {}, saved(pool))),
    ];
  });
  const journal = share(status.journal.used_bytes, status.journal.capacity_bytes);
  return card("half", "Space", gauges,
    h("div", { class: "pair apart small quiet" }, h("span", {}, "Journal"), h("span", { class: "number" }, `${percent(journal)} of ${bytes(status.journal.capacity_bytes)}`)),
    meter("Journal used", journal, journal >= 0.9 ? "warn" : ""));
}

function saved(pool) {
  const parts = [];
  if (known(pool.dedup_ratio)) parts.push(`dedup ${pool.dedup_ratio.toFixed(2)}x`);
  if (known(pool.compression_ratio)) parts.push(`compression ${pool.compression_ratio.toFixed(2)}x`);
  return parts.join(" · ");
}

const stat = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

function load(status) {
  const rate = (value) => (known(value) ? count(value) : "-");
  const latency = status.latency_ms;
  return card("", "Load", h("dl", { class: "stats" },
    stat("Reads/s", rate(status.load.reads_per_second)),
    stat("Writes/s", rate(status.load.writes_per_second)),
    stat("Others/s", rate(status.load.others_per_second)),
    stat("Throughput", known(status.load.bytes_per_second) ? `${bytes(status.load.bytes_per_second)}/s` : "-"),
    stat("Latency, mean", known(latency.total) ? `${ms(latency.total)} ms` : "-"),
    stat("p99", known(latency.p99) ? `${ms(latency.p99)} ms` : "-"),
    stat("CPU", known(status.load.cpu_percent) ? `${status.load.cpu_percent.toFixed(0)} %` : "-"),
    stat("Connections", count(status.nfs.connections))));
}

function latency(live, draw) {
  chart.refresh(draw);
  return card("", null, chart.view(live, draw));
}

function running(jobs) {
  const atWork = jobs.filter((job) => ["running", "paused"].includes(job.state));
  return card("half", "Running", atWork.length ? atWork.map((job) => jobRow(job)) : h("p", { class: "quiet" }, "Nothing is going on in the background"));
}

function latest(events) {
  const newest = events.slice(-5).reverse();
  return card("half", "Latest",
    newest.length ? h("ul", { class: "plain-list" }, newest.map(eventRow)) : h("p", { class: "quiet" }, "No events yet"),
    h("p", {}, h("a", { href: "#/activity" }, "All activity")));
}
