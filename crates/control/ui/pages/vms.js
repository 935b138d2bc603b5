// Which VMs are there, how big are they, and can they go back?

import { get } from "../api.js";
import { h } from "../dom.js";
import { ago, bytes, count, known, ms } from "../format.js";
import { Watch } from "../watch.js";
import { card, title } from "./parts.js";
import * as one from "./vm.js";
import { assignDialog } from "./vm_changes.js";
import { key, pageOf, scheduleWords, sizeOf, troubleOf, usedOf } from "./vm_parts.js";

// More rows than anybody reads; the filter finds the rest.
const ROWS_MAX = 500;

const opsOf = (now) => now.reads_per_second + now.writes_per_second + now.others_per_second;
const newest = (vm) => vm.snapshots.at(-1) || null;
const newestAt = (vm) => (newest(vm) ? Date.parse(newest(vm).created_at) : null);

// Heading, what is sorted by, look, what is shown.
const COLUMNS = [
  { id: "datastore", name: "Datastore", by: (vm) => vm.datastore, cell: (vm) => vm.datastore },
  { id: "files", name: "Files", by: (vm) => vm.files.length, look: "right", cell: (vm) => count(vm.files.length) },
  { id: "size", name: "Size", by: sizeOf, look: "right nowrap", cell: (vm) => bytes(sizeOf(vm)) },
  { id: "ops", name: "Ops/s", by: (vm) => (vm.now ? opsOf(vm.now) : null), look: "right", cell: (vm) => (vm.now ? count(opsOf(vm.now)) : "-") },
  { id: "latency", name: "Latency, ms", by: (vm) => (vm.now ? vm.now.latency_ms.total : null), look: "right", cell: (vm) => (vm.now ? ms(vm.now.latency_ms.total) : "-") },
  { id: "slow", name: "Slow part", by: (vm) => (vm.now ? vm.now.slow_part : null), cell: (vm) => (vm.now && vm.now.slow_part) || "-" },
  { id: "used", name: "Used", by: usedOf, look: "right nowrap", cell: (vm) => bytes(usedOf(vm)) },
  { id: "snapshots", name: "Snapshots", by: (vm) => vm.snapshots.length, look: "right", cell: (vm) => count(vm.snapshots.length) },
  { id: "newest", name: "Newest", by: newestAt, look: "nowrap", cell: newestCell },
  { id: "schedule", name: "Schedule", by: (vm) => (vm.schedule ? vm.schedule.every_seconds : null), cell: (vm) => scheduleWords(vm.schedule) },
];
const NAME = { id: "name", name: "VM", by: (vm) => vm.name };

function newestCell(vm) {
  const last = newest(vm);
  return last ? h("time", { datetime: last.created_at, title: `${last.name}, ${last.created_at} UTC` }, ago(last.created_at)) : "-";
}

const page = { watch: null, filter: "", by: NAME.id, isDown: false, order: [] };

export const name = (rest) => (rest.length > 1 ? rest[1] : null);

export function enter(rest, draw) {
  if (rest.length > 1) return one.enter(rest, draw);
  page.order = [];
  const before = page.watch && page.watch.data;
  page.watch = new Watch(() => get("/v1/vms"), draw);
  page.watch.data = before;
  page.watch.now();
}

export function after(main, live, draw) {
  if (live.rest.length > 1) one.after(main, live, draw);
}

export function leave() {
  if (page.watch) page.watch.stop();
  one.leave();
}

export function view(live, draw) {
  if (live.rest.length > 1) return one.view(live, draw);
  const { data, trouble } = page.watch;
  const shown = data ? ordered(data.filter(fits)) : [];
  const found = !data || !data.length ? "" : page.filter ? `${count(shown.length)} of ${count(data.length)}` : count(data.length);
  return [
    title("VMs", h("span", { class: "quiet", role: "status" }, found), tools(live, draw)),
    troubleOf(page.watch),
    h("div", { class: "grid" }, data ? list(data, shown, live, draw) : trouble ? null : card("", null, h("p", { class: "quiet" }, "Asking"))),
  ];
}

function tools(live, draw) {
  const filter = h("input", {
    id: "filter", type: "search", placeholder: "Filter", "aria-label": "Filter VMs", value: page.filter,
    oninput: (event) => { page.filter = event.target.value; draw(); },
    onkeydown: (event) => { if (["ArrowDown", "Enter"].includes(event.key)) { event.preventDefault(); focusRow(0); } },
  });
  const sort = h("select", {
    id: "sort", class: "narrow", "aria-label": "Sort by", onchange: (event) => sortBy(event.target.value, draw),
  }, [NAME, ...COLUMNS].map((column) => h("option", { value: column.id, selected: page.by === column.id }, `by ${column.name}`)));
  const may = live.session.role !== "viewer";
  return h("div", { class: "tools" }, filter, sort,
    may ? h("button", { onclick: () => assignDialog({}, () => page.watch.now()) }, "Assign a file") : null);
}

function fits(vm) {
  const text = [vm.name, vm.datastore, scheduleWords(vm.schedule)].join(" ").toLowerCase();
  return page.filter.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

function sortBy(id, draw) {
  page.isDown = page.by === id && !page.isDown;
  page.by = id;
  page.order = [];
  draw();
}

// What is not known goes last, whichever way is up.
function compare(a, b) {
  const column = [NAME, ...COLUMNS].find((one) => one.id === page.by);
  const [left, right] = [column.by(a), column.by(b)];
  const turn = page.isDown ? -1 : 1;
  if (!known(left) || !known(right)) return Number(!known(left)) - Number(!known(right)) || byName(a, b);
  const order = typeof left === "number" ? left - right : left.localeCompare(right, "en", { numeric: true });
  return turn * order || byName(a, b);
}

const byName = (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });

// Rows stay where they are while somebody points at one or has one in focus.
function ordered(list) {
  const sorted = [...list].sort(compare);
  const body = document.querySelector("#vms tbody");
  if (body && page.order.length && (body.matches(":hover") || body.contains(document.activeElement))) {
    const place = new Map(page.order.map((one, index) => [one, index]));
    const at = (vm) => place.get(key(vm)) ?? page.order.length;
    sorted.sort((a, b) => at(a) - at(b));
  }
  page.order = sorted.map(key);
  return sorted;
}

const links = () => [...document.querySelectorAll("#vms tbody th a")];

function focusRow(index) {
  const rows = links();
  if (rows.length) rows[Math.max(0, Math.min(index, rows.length - 1))].focus();
}

function rowKeys(event) {
  const at = links().indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: Infinity }[event.key];
  if (to === undefined || at < 0) return;
  event.preventDefault();
  if (to < 0) document.getElementById("filter").focus();
  else focusRow(to);
}

function list(data, shown, live, draw) {
  if (!data.length) return nothing(live);
  if (!shown.length) return card("", null, h("p", {}, `No VM fits “${page.filter}”. `), h("button", { onclick: () => { page.filter = ""; document.getElementById("filter").value = ""; draw(); } }, "Show all"));
  const sorted = (column) => (page.by === column.id ? (page.isDown ? "descending" : "ascending") : null);
  const head = (column) => h("th", { scope: "col", class: /right/.test(column.look) ? "right" : null, "aria-sort": sorted(column) },
    h("button", { class: "plain sort", onclick: () => sortBy(column.id, draw) }, column.name,
      h("span", { "aria-hidden": "true" }, sorted(column) ? (page.isDown ? " ▼" : " ▲") : "")));
  const row = (vm) => h("tr", { id: `vm-${encodeURIComponent(key(vm))}` },
    h("th", { scope: "row" }, h("a", { href: pageOf(vm) }, vm.name)),
    COLUMNS.map((column) => h("td", { "data-label": column.name, class: column.look }, column.cell(vm))));
  return card("", null,
    h("div", { class: "scroll" }, h("table", { class: "cards", id: "vms", "aria-label": "VMs" },
      h("thead", {}, h("tr", {}, [NAME, ...COLUMNS].map(head))),
      h("tbody", { onkeydown: rowKeys }, shown.slice(0, ROWS_MAX).map(row)))),
    shown.length > ROWS_MAX ? h("p", { class: "quiet" }, `The first ${count(ROWS_MAX)} are shown; the filter finds the others`) : null);
}

function nothing(live) {
  return card("", "No VM has been found yet",
    h("p", {}, "VMs are recognised by their files, as hypervisors lay them out. To get one:"),
    h("ol", {},
      h("li", {}, "Mount a datastore on a hypervisor: ", h("a", { href: "#/datastores" }, "Datastores"), " shows the command for yours."),
      h("li", {}, "Make a VM on it. It is here within seconds of its first file."),
      live.session.role === "viewer" ? null : h("li", {}, "Or assign a file that is there already to a VM, with the button above.")));
}
