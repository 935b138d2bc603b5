// Would I survive losing a site now? What did it cost the last time?

import { get, segment } from "../api.js";
import { ask } from "../dialog.js";
import { h } from "../dom.js";
import { cli, known, time } from "../format.js";
import { live } from "../live.js";
import { Watch } from "../watch.js";
import { card, title } from "./parts.js";

// A store of one site has no such page.
export const isThere = (status) => Boolean(status && status.replication);

const STATES = { IN_SYNC: ["ok", "IN SYNC"], RESYNCING: ["warn", "RESYNCING"], OUT_OF_SYNC: ["warn", "OUT OF SYNC"], PAUSED: ["warn", "PAUSED"], UNKNOWN: ["none", "unknown"] };
const KINDS = {
  FOUNDED: "pair made", JOINED: "site taken in", LEFT: "site given up", WENT_ALONE: "went on alone", IN_SYNC: "in sync",
  HANDED_OVER: "handed over, as planned", TOOK_OVER: "took over", FORCED: "made primary by force", RESTORED: "witness was told again",
};
const PHASES = [["noticed_ms", "noticed after"], ["granted_ms", "agreed in"], ["opened_ms", "doors open in"], ["stopped_ms", "clients stopped for"]];

let watch = null;

export function enter(rest, draw) {
  watch = new Watch(async () => {
    const pair = live.status && live.status.replication;
    return pair ? get(`/v1/replication/${segment(pair.pool)}/history`) : null;
  }, draw);
  watch.now();
}

export function leave() {
  watch.stop();
}

export function view(now) {
  if (!now.status) return [title("Replication"), h("p", { class: "quiet" }, "Waiting for the store's first word")];
  const pair = now.status.replication;
  if (!pair) return [title("Replication"), h("p", {}, "This store has no other site.")];
  const [look, word] = STATES[pair.state] || STATES.UNKNOWN;
  return [
    title("Replication", h("span", { class: `pill ${look}` }, word), h("span", { class: "quiet" }, `${pair.pool} at ${pair.address}${known(pair.epoch) ? ` · epoch ${pair.epoch}` : ""}`)),
    h("div", { class: "grid" }, readiness(pair), sites(pair), changes()),
  ];
}

function readiness(pair) {
  const reasons = pair.failover_waits_for;
  const isReady = reasons.length === 0;
  return card(`half ${isReady ? "" : "warn"}`, "Automatic failover",
    h("p", { class: "big" }, isReady ? "READY " : "NOT READY ", h("small", {}, isReady ? "either site may be lost now" : "the loss of a site would need somebody")),
    reasons.length ? h("ul", { class: "reasons" }, reasons.map((reason) => h("li", {}, reason))) : null,
    known(pair.may_lack_after) ? h("p", { class: "finding" }, `This copy may lack what was acknowledged after operation ${pair.may_lack_after}.`) : null,
    h("div", { class: "orders" }, orders(pair).map(([label, change]) =>
      h("button", { type: "button", onclick: () => ask(change, () => watch.now()) }, label))));
}

// What can be asked of this site as it is now.
function orders(pair) {
  const order = (action, verb, heading, command) => ({
    title: heading, method: "POST", path: `/v1/replication/${segment(pair.pool)}`, body: { action }, verb, command: cli(`replication ${command} ${pair.pool}`),
  });
  if (pair.role !== "PRIMARY") {
    return [["Fail over to here…", order("failover", "Fail over", `Make ${pair.site} primary`, "failover")]];
  }
  const pause = pair.state === "PAUSED"
    ? ["Resume…", order("resume", "Resume", "Be in sync again", "resume")]
    : ["Pause…", order("pause", "Pause", "Go on without the other site", "pause")];
  return [["Switch over…", order("switchover", "Switch over", "Make the other site primary", "switchover")], pause];
}

function sites(pair) {
  const roles = { PRIMARY: pair.serves ? "PRIMARY, serves" : "PRIMARY, does not serve now", SECONDARY: "SECONDARY", UNKNOWN: "has met nobody yet" };
  const row = (what, where, look, how, why) => h("tr", {},
    h("th", { scope: "row" }, what),
    h("td", { "data-label": "Where" }, h("code", {}, where)),
    h("td", { "data-label": "State" }, h("span", { class: `pill ${look}` }, how), why ? h("p", { class: "quiet small" }, why) : null));
  const reached = (what, one) => row(what, one.address, one.answers ? "ok" : "bad", one.answers ? "reached" : "NOT REACHED", one.why_not);
  const looks = { PRIMARY: pair.serves ? "ok" : "bad", SECONDARY: "ok" };
  return card("half", "Sites", h("table", { class: "cards" },
    h("thead", {}, h("tr", {}, ["Who", "Where", "State"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {},
      row("this site", pair.site, looks[pair.role] || "none", roles[pair.role] || roles.UNKNOWN),
      reached("other site", pair.peer), reached("witness", pair.witness))));
}

function total(pause) {
  const parts = pause ? PHASES.map(([key]) => pause[key]).filter(known) : [];
  return parts.length ? parts.reduce((sum, part) => sum + part, 0) : null;
}

const inWords = (value) => (value < 999.5 ? `${value.toFixed(0)} ms` : `${(value / 1000).toFixed(1)} s`);

function changes() {
  if (watch.trouble) return card("", "Role changes", h("p", { class: "quiet" }, `They are not known now: ${watch.trouble.message}`));
  if (!watch.data) return card("", "Role changes", h("p", { class: "quiet" }, "Asking for them"));
  const list = [...watch.data.changes].reverse();
  if (!list.length) return card("", "Role changes", h("p", { class: "quiet" }, `${watch.data.site} has seen none yet`));
  const row = (change) => h("tr", {},
    h("th", { scope: "row" }, h("time", { datetime: change.at, title: `${change.at} UTC` }, time(change.at))),
    h("td", { "data-label": "What" }, KINDS[change.kind] || change.kind),
    h("td", { "data-label": "This site is" }, change.role),
    h("td", { "data-label": "Sync" }, change.in_sync ? "IN SYNC" : "OUT OF SYNC"),
    h("td", { "data-label": "Epoch", class: "right" }, change.epoch),
    h("td", { "data-label": "Client pause", class: "right" }, pauseOf(change.pause)));
  return card("", "Role changes",
    h("p", { class: "quiet small" }, `As ${watch.data.site} has seen them; a pause is what it could measure of it.`),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of role changes" }, h("table", { class: "cards" },
      h("thead", {}, h("tr", {}, ["When", "What", "This site is", "Sync", "Epoch", "Client pause"].map((name, index) => h("th", { scope: "col", class: index > 3 ? "right" : "" }, name)))),
      h("tbody", {}, list.map(row)))));
}

function pauseOf(pause) {
  const sum = total(pause);
  if (!known(sum)) return "-";
  const parts = PHASES.filter(([key]) => known(pause[key])).map(([key, words]) => `${words} ${inWords(pause[key])}`);
  return h("div", {}, inWords(sum), h("p", { class: "quiet small" }, parts.join(", ")));
}
