// Pieces that several pages show.

import { h } from "../dom.js";
import { ago, bytes, duration, known, percent, time } from "../format.js";

export const title = (text, ...more) => h("div", { class: "title" }, h("h1", {}, text), more);

export const card = (kind, heading, ...content) =>
  h("section", { class: `card ${kind}` }, heading ? h("h2", {}, heading) : null, content);

export function meter(label, ratio, look) {
  const value = known(ratio) ? Math.floor(ratio * 100) : null;
  return h("div", {
    class: `meter ${look || ""}`, role: "progressbar", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100,
    "aria-valuenow": value, "aria-valuetext": known(ratio) ? `${value} percent` : "unknown",
  }, known(ratio) ? h("div", { css: { width: `${Math.min(100, Math.max(0, ratio * 100))}%` } }) : null);
}

const MARKS = { error: ["bad", "ERROR"], warning: ["warn", "WARN"], info: ["none", "INFO"] };

export function mark(event) {
  const [look, word] = event.kind === "cleared" ? ["ok", "CLEAR"] : MARKS[event.severity] || MARKS.info;
  return h("span", { class: `mark ${look}` }, word);
}

export function eventRow(event) {
  const lasted = known(event.lasted_seconds) ? `, lasted ${duration(event.lasted_seconds)}` : "";
  return h("li", { class: "event" },
    h("time", { class: "when", datetime: event.at, title: `${event.at} UTC` }, time(event.at)),
    mark(event),
    h("span", { class: "text" }, h("b", {}, event.object), ` ${event.detail}${lasted} `,
      h("span", { class: "quiet small mono" }, `${event.code} ${event.name}`)));
}

const STATES = { running: "", paused: "paused", done: "done", failed: "failed", cancelled: "cancelled" };

export function jobRow(job, actions) {
  const look = job.state === "failed" ? "bad" : job.state === "paused" ? "warn" : "";
  const told = [
    known(job.percent) ? `${Math.floor(job.percent)} %` : job.state === "running" ? "at work, its size is not known" : null,
    STATES[job.state] || null,
    known(job.rate_bytes_per_second) && job.state === "running" ? `${bytes(job.rate_bytes_per_second)}/s` : null,
    known(job.eta_seconds) ? `${duration(job.eta_seconds)} left` : null,
    job.limited_by ? `held back by ${job.limited_by.replaceAll("_", " ")}` : null,
    job.pass > 1 ? `pass ${job.pass}` : null,
    job.ended_at ? `${ago(job.ended_at)}` : null,
  ].filter(Boolean).join(" · ");
  return h("div", { class: "job" },
    h("div", { class: "pair" },
      h("span", {}, h("b", {}, `${job.kind} ${job.object}`), " ", h("span", { class: "quiet mono small" }, job.id)),
      h("span", { class: "number quiet" }, told)),
    known(job.percent) && job.state !== "cancelled" ? meter(`${job.kind} ${job.object}`, job.percent / 100, look) : null,
    job.result ? h("p", { class: "quiet small" }, job.result) : null,
    actions || null);
}

export const drivesOut = (pool) => pool.drives.filter((drive) => ["FAILED", "MISSING"].includes(drive.state));

export const poolLook = { ONLINE: "ok", DEGRADED: "warn", CRITICAL: "bad", FAULTED: "bad" };

export const used = (drive) => (known(drive.used_bytes) && drive.capacity_bytes ? drive.used_bytes / drive.capacity_bytes : null);

export const usedText = (drive) => percent(used(drive));
