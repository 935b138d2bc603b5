// What is running, what happened, who did it?

import { get, segment } from "../api.js";
import { h } from "../dom.js";
import { ask, problemBox } from "../dialog.js";
import { cli, time } from "../format.js";
import { card, eventRow, jobRow, title } from "./parts.js";

const page = { filter: "", audit: null, verified: null, trouble: null };

export function enter(rest, draw) {
  if (rest[0] === "audit") loadAudit(draw);
}

async function loadAudit(draw) {
  try {
    [page.audit, page.verified] = await Promise.all([get("/v1/audit?limit=500"), get("/v1/audit/verification")]);
    page.trouble = null;
  } catch (problem) {
    page.trouble = problem;
  }
  draw();
}

export function view(live, draw) {
  const tab = live.rest[0] || "events";
  const tabs = [["events", "Events"], ["jobs", "Jobs"]].concat(live.session.role === "viewer" ? [] : [["audit", "Audit"]]);
  const filter = h("input", {
    id: "filter", type: "search", placeholder: "Filter", "aria-label": "Filter", value: page.filter,
    oninput: (event) => { page.filter = event.target.value; draw(); },
  });
  return [
    title("Activity",
      h("nav", { class: "tabs", "aria-label": "Kinds of activity" }, tabs.map(([id, name]) => h("a", { href: `#/activity/${id}`, "aria-current": tab === id ? "page" : null }, name))),
      h("div", { class: "tools" }, filter)),
    h("div", { class: "grid" }, tab === "jobs" ? jobs(live, draw) : tab === "audit" ? audit() : events(live)),
  ];
}

const fits = (value) => JSON.stringify(value).toLowerCase().includes(page.filter.toLowerCase());

function events(live) {
  const shown = live.events.filter(fits).slice(-200).reverse();
  return card("", null, shown.length ? h("ul", { class: "plain-list" }, shown.map(eventRow)) : h("p", { class: "quiet" }, page.filter ? "No event fits the filter" : "Nothing has happened yet"));
}

function jobs(live, draw) {
  const shown = live.jobs.filter(fits);
  const may = live.session.role !== "viewer";
  const act = (job, verb, word) => h("button", {
    onclick: () => ask({ title: `${word} ${job.kind} ${job.object}`, method: "POST", path: `/v1/jobs/${segment(job.id)}/${verb}`, verb: word, command: cli(`job ${verb} ${job.id}`) }, draw),
  }, word);
  const actions = (job) => {
    if (!may || job.ended_at || !["running", "paused"].includes(job.state)) return null;
    return h("div", { class: "tools" },
      job.can_pause ? (job.state === "paused" ? act(job, "resume", "Resume") : act(job, "pause", "Pause")) : null,
      job.can_cancel ? act(job, "cancel", "Cancel") : null);
  };
  return card("", null, shown.length ? shown.map((job) => jobRow(job, actions(job))) : h("p", { class: "quiet" }, page.filter ? "No job fits the filter" : "No job has run yet"));
}

function audit() {
  if (page.trouble) return card("", null, problemBox(page.trouble));
  if (!page.audit) return card("", null, h("p", { class: "quiet" }, "Asking"));
  const answers = new Map(page.audit.filter((entry) => entry.about).map((entry) => [entry.about, entry]));
  const shown = page.audit.filter((entry) => !entry.about && fits(entry)).reverse();
  const result = (entry) => {
    const answer = answers.get(entry.number) || entry;
    const status = answer.outcome.answered ? answer.outcome.answered.status : null;
    return `${status === null ? "asked" : status < 300 ? "done" : `refused (${status})`}${entry.dry_run ? ", dry run" : ""}`;
  };
  const row = (entry) => h("tr", {},
    h("td", { "data-label": "When", class: "nowrap" }, h("time", { datetime: entry.at, title: `${entry.at} UTC` }, time(entry.at))),
    h("td", { "data-label": "Who" }, entry.who),
    h("td", { "data-label": "From" }, entry.from || "-"),
    h("td", { "data-label": "What" }, h("code", {}, entry.action)),
    h("td", { "data-label": "Result" }, result(entry)));
  const chain = page.verified.broken_at_line
    ? h("div", { class: "problem", role: "alert" }, `The audit log is broken at line ${page.verified.broken_at_line}`)
    : h("p", { class: "quiet small" }, `${page.verified.entries} entries hang together; newest hash `, h("code", { class: "hash" }, page.verified.newest_hash));
  return card("", null, chain, shown.length ? h("div", { class: "scroll" }, h("table", { class: "cards" },
    h("thead", {}, h("tr", {}, ["When", "Who", "From", "What", "Result"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, shown.map(row)))) : h("p", { class: "quiet" }, "Nobody has changed anything"));
}
