// The frame: who is logged in, which page, health and freshness in the header, keys.

import { get, call } from "./api.js";
import { h, show, say } from "./dom.js";
import { duration } from "./format.js";
import * as dialog from "./dialog.js";
import { isStale, live, onChange, pause, start, stop } from "./live.js";
import * as overview from "./pages/overview.js";
import * as vms from "./pages/vms.js";
import * as datastores from "./pages/datastores.js";
import * as pool from "./pages/pool.js";
import * as replication from "./pages/replication.js";
import * as activity from "./pages/activity.js";
import * as settings from "./pages/settings.js";
import * as login from "./pages/login.js";

const PAGES = [
  ["overview", "Overview", "o", overview], ["vms", "VMs", "v", vms], ["datastores", "Datastores", "d", datastores], ["pool", "Pool", "p", pool],
  ["replication", "Replication", "r", replication], ["activity", "Activity", "a", activity], ["settings", "Settings", "s", settings],
];
const LEVELS = { OK: ["ok", "●"], WARN: ["warn", "▲"], ERROR: ["bad", "■"] };
const SLOW_MS = 1000;

const main = document.getElementById("main");
const head = document.getElementById("head");
export const state = { session: null, page: null, name: null, rest: [], saidLevel: null };

// A page of what this store does not have is absent, not empty.
const shown = () => PAGES.filter(([, , , page]) => !page.isThere || page.isThere(live.status));

function route() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const found = PAGES.find(([id]) => id === name) || PAGES[0];
  const isNew = state.name !== found[0] || state.rest.join("/") !== rest.join("/");
  if (!isNew) return;
  leave();
  [state.name, state.page, state.rest] = [found[0], found[3], rest];
  const object = state.page.name && state.page.name(rest);
  document.title = `${object ? `${object} · ` : ""}${found[1]} · vmhold`;
  main.replaceChildren();
  if (state.page.enter) state.page.enter(rest, draw);
  draw();
  const title = main.querySelector("h1");
  if (title) { title.tabIndex = -1; title.focus({ preventScroll: true }); }
  window.scrollTo(0, 0);
}

function leave() {
  if (state.page && state.page.leave) state.page.leave();
}

function draw() {
  drawHead();
  if (!state.session) return;
  show(main, state.page.view({ ...live, session: state.session, rest: state.rest }, draw));
  if (state.page.after) state.page.after(main, { ...live, rest: state.rest }, draw);
}

function freshness() {
  if (live.paused) return h("button", { class: "live paused plain", onclick: () => pause(false) }, "paused, go on");
  if (isStale()) return h("span", { class: "live stale" }, `STALE ${duration((Date.now() - live.lastWord) / 1000)}`);
  if (!live.lastWord) return h("span", { class: "live paused" }, "connecting");
  return h("span", { class: "live" }, live.age > 2 ? `data ${duration(live.age)} old` : "live");
}

function drawHead() {
  document.body.classList.toggle("is-stale", isStale());
  const health = live.status && live.status.health;
  const [look, mark] = (health && LEVELS[health.level]) || ["none", "○"];
  const failing = health ? health.findings.length : 0;
  const words = !health ? "unknown" : failing ? `${health.level} ${failing}` : health.level;
  const items = shown().map(([id, title]) =>
    h("a", { href: `#/${id}`, "aria-current": state.name === id ? "page" : null }, title));
  show(head, h("div", { class: "bar" },
    h("a", { class: "brand", href: "#/overview" }, h("img", { src: "/ui/icon.svg", alt: "" }), "vmhold"),
    state.session ? h("nav", { "aria-label": "Pages" }, items) : null,
    state.session ? h("div", { class: "state" }, freshness(),
      h("a", { class: `pill ${isStale() ? "none" : look}`, href: "#/overview", "aria-label": `Health: ${isStale() ? "unknown, last known " : ""}${words}` },
        h("span", { "aria-hidden": "true" }, isStale() ? "○" : mark), words)) : null));
  if (health && state.saidLevel !== health.level) {
    if (state.saidLevel) say(`Health is now ${health.level}`);
    state.saidLevel = health.level;
  }
}

export async function loggedIn(session) {
  state.session = session;
  state.name = null;
  history.replaceState(null, "", location.hash.startsWith("#login=") ? "#/overview" : location.hash || "#/overview");
  try {
    await start(loggedOut);
  } catch (problem) {
    if (problem.status === 401) return loggedOut();
  }
  route();
}

export function loggedOut() {
  stop();
  leave();
  state.session = null;
  state.name = null;
  drawHead();
  document.title = "Log in · vmhold";
  main.replaceChildren();
  show(main, login.view(loggedIn));
}

async function begin() {
  onChange(draw);
  window.addEventListener("hashchange", () => {
    if (location.hash.startsWith("#login=")) location.reload();
    else if (state.session && location.hash !== "#main") route();
  });
  document.addEventListener("keydown", keys);
  setInterval(() => { if (state.session) drawHead(); }, SLOW_MS);
  const word = location.hash.startsWith("#login=") ? location.hash.slice("#login=".length) : null;
  try {
    if (word) return await loggedIn(await call("POST", "/v1/session", { body: { login: word } }));
    await loggedIn(await get("/v1/session"));
  } catch (problem) {
    if (word) {
      // The word may have been used by this very browser before a reload.
      const again = await get("/v1/session").catch(() => null);
      if (again) return loggedIn(again);
    }
    loggedOut();
    if (problem.status !== 401 || word) main.prepend(h("div", { class: "alone" }, dialog.problemBox(problem)));
  }
}

let went = false;
function keys(event) {
  const isTyping = event.target.closest("input, select, textarea, dialog");
  if (!state.session || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  if (localStorage.getItem("keys") === "off") return;
  const page = went && shown().find(([, , key]) => key === event.key);
  went = event.key === "g";
  if (page) location.hash = `#/${page[0]}`;
  else if (event.key === ".") pause(!live.paused);
  else if (event.key === "/") { const filter = main.querySelector("input[type=search]"); if (filter) { event.preventDefault(); filter.focus(); } }
  else if (event.key === "?") help();
}

function help() {
  const rows = [[`g then ${shown().map(([, , key]) => key).join(" ")}`, "go to a page"], [".", "pause and go on"], ["/", "filter"], ["↑ ↓", "move in the table of VMs"], ["?", "this list"], ["Esc", "close"]];
  dialog.open("Keys", (close) => [
    h("table", {}, h("tbody", {}, rows.map(([key, does]) => h("tr", {}, h("td", {}, h("kbd", {}, key)), h("td", {}, does))))),
    h("div", { class: "actions" }, h("button", { class: "main", onclick: close }, "Close")),
  ]);
}

begin();
