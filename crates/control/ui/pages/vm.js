// What is this VM made of, and what can it go back to?

import { get } from "../api.js";
import { h } from "../dom.js";
import * as chart from "../chart.js";
import { ago, bytes, count, known, ms, percent, time } from "../format.js";
import { Watch } from "../watch.js";
import { card, meter, title } from "./parts.js";
import { pathOf, scheduleWords, sizeOf, troubleOf, usedOf } from "./vm_parts.js";
import * as changes from "./vm_changes.js";

const NO_SUCH_VM = "VH3001";
// A schedule may keep thousands; the CLI lists them all.
const SNAPSHOTS_MAX = 200;

const page = { watch: null };

export function enter([datastore, name], draw) {
  leave();
  page.watch = new Watch(() => look({ datastore, name }), draw);
  page.watch.now();
  chart.showPath(pathOf({ datastore, name }, "/latency?"));
  chart.refresh(draw);
}

export function after(main, live, draw) {
  chart.after(main, live, draw);
}

export function leave() {
  if (page.watch) page.watch.stop();
}

// A VM that is gone may have snapshots: then there is a page, and a way back.
async function look(at) {
  try {
    const [vm, activity] = await Promise.all([get(pathOf(at)), get("/v1/activity?by=disk")]);
    const isOurs = (row) => row.datastore === at.datastore && row.vm === at.name;
    return { ...vm, disks: activity.rows.filter(isOurs) };
  } catch (problem) {
    if (problem.code !== NO_SUCH_VM) throw problem;
    return { ...at, files: null, snapshots: await get(pathOf(at, "/snapshots")), schedule: undefined };
  }
}

export function view(live, draw) {
  const [datastore, name] = live.rest;
  const { data: vm, trouble } = page.watch;
  const may = live.session.role !== "viewer";
  const again = () => page.watch.now();
  return [
    h("nav", { class: "crumbs", "aria-label": "Where this is" }, h("a", { href: "#/vms" }, "VMs"), h("span", { class: "quiet" }, `› ${datastore} › ${name}`)),
    title(name, may && vm ? tools(vm, again) : null),
    troubleOf(page.watch),
    h("div", { class: "grid" },
      vm ? [performance(vm), latency(vm, live, draw), facts(vm), protection(vm, may, again), snapshots(vm, may, again), files(vm, may, again)] : trouble ? null : card("", null, h("p", { class: "quiet" }, "Asking"))),
  ];
}

function tools(vm, again) {
  if (!vm.files) return null;
  return h("div", { class: "tools" },
    h("button", { class: "main", onclick: () => changes.snapshotDialog(vm, again) }, "Take a snapshot"),
    h("button", { onclick: () => changes.cloneDialog(vm, null) }, "Clone"),
    h("button", { onclick: () => changes.renameDialog(vm) }, "Rename"));
}

const stat = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
const inMs = (value) => (known(value) ? `${ms(value)} ms` : "-");

function performance(vm) {
  if (!vm.files) return null;
  const { now } = vm;
  if (!known(now)) return card("", "Performance", h("p", { class: "quiet" }, "Not known yet: nothing has been measured since the start."));
  const { latency_ms: latency } = now;
  return card("", now.slow_part ? `Performance: most of the time goes to ${now.slow_part}` : "Performance",
    h("dl", { class: "stats" },
      stat("Reads/s", count(now.reads_per_second)), stat("Writes/s", count(now.writes_per_second)), stat("Others/s", count(now.others_per_second)),
      stat("Throughput", `${bytes(now.bytes_per_second)}/s`), stat("Latency, mean", inMs(latency.total)),
      stat("p50", inMs(latency.p50)), stat("p95", inMs(latency.p95)), stat("p99", inMs(latency.p99))),
    vm.disks.length ? disks(vm) : null);
}

function disks(vm) {
  const columns = [["Disk"], ["Operations/s", "right"], ["Latency, ms", "right"], ["p99, ms", "right"], ["Slow part"], ["Share of the work", "right"]];
  const one = (disk) => h("tr", {},
    h("th", { scope: "row", class: "path" }, h("code", {}, disk.disk)),
    h("td", { "data-label": "Operations/s", class: "right" }, count(disk.reads_per_second + disk.writes_per_second + disk.others_per_second)),
    h("td", { "data-label": "Latency, ms", class: "right" }, ms(disk.latency_ms.total)),
    h("td", { "data-label": "p99, ms", class: "right" }, ms(disk.latency_ms.p99)),
    h("td", { "data-label": "Slow part" }, disk.slow_part || "-"),
    h("td", { "data-label": "Share of the work", class: "right" }, `${disk.share_percent.toFixed(0)} %`));
  return h("div", { class: "scroll" }, h("table", { class: "cards", "aria-label": `Disks of ${vm.name} that do something` },
    h("thead", {}, h("tr", {}, columns.map(([name, look]) => h("th", { scope: "col", class: look }, name)))),
    h("tbody", {}, vm.disks.map(one))));
}

function latency(vm, live, draw) {
  if (!vm.files) return null;
  chart.refresh(draw);
  return card("", null, chart.view(live, draw));
}

const row = (name, value) => [h("dt", {}, name), h("dd", {}, value)];

function facts(vm) {
  const [size, used] = [sizeOf(vm), usedOf(vm)];
  // Whole blocks are counted, so what is used can be a little more than what there is.
  const ratio = known(used) && size > 0 ? Math.min(1, used / size) : null;
  return card("half", "Space",
    h("p", { class: "big" }, bytes(used), h("small", {}, ` used, size ${bytes(size)}`)),
    meter("Share of the size that is used", ratio),
    h("dl", { class: "facts" },
      row("Datastore", vm.datastore),
      row("Files", vm.files ? count(vm.files.length) : "-"),
      row("Used", percent(ratio))),
    vm.files ? h("p", { class: "quiet small legend-text" }, "Used is what is no hole, in whole blocks, before they are shared and compressed")
      : h("p", { class: "problem" }, "Its files are gone. A rollback to a snapshot brings them back."));
}

function protection(vm, may, again) {
  const [oldest, newest] = [vm.snapshots[0], vm.snapshots.at(-1)];
  const when = (one) => (one ? `${ago(one.created_at)}, ${one.name}` : "-");
  const byHand = vm.snapshots.filter((one) => !one.scheduled).length;
  return card("half", "Protection",
    h("p", { class: "big" }, newest ? ago(newest.created_at) : "None", h("small", {}, newest ? " is the newest snapshot" : ": no snapshot has been taken")),
    h("dl", { class: "facts" },
      row("Schedule", scheduleWords(vm.schedule)),
      row("Snapshots", `${count(vm.snapshots.length)}, ${count(byHand)} of them by hand`),
      row("Newest", when(newest)), row("Oldest", when(oldest))),
    may && vm.files ? h("p", { class: "after" }, h("button", { onclick: () => changes.scheduleDialog(vm, again) }, vm.schedule ? "Change the schedule" : "Set a schedule")) : null);
}

const table = (label, columns, rows) => h("div", { class: "scroll" }, h("table", { class: "cards", "aria-label": label },
  h("thead", {}, h("tr", {}, columns.map(([name, look]) => h("th", { scope: "col", class: look }, name || h("span", { class: "unseen" }, "Actions"))))),
  h("tbody", {}, rows)));

function snapshots(vm, may, again) {
  if (!vm.snapshots.length) {
    return card("", "Snapshots", h("p", { class: "quiet" }, "None. A snapshot freezes all files of the VM at one point, while it runs; it costs what is changed after it."));
  }
  const one = (snapshot) => {
    const button = (text, label, act) => h("button", { class: "plain", "aria-label": `${label} ${snapshot.name}`, onclick: act }, text);
    return h("tr", { id: `snapshot-${encodeURIComponent(snapshot.name)}` },
      h("th", { scope: "row" }, snapshot.name),
      h("td", { "data-label": "Taken", class: "nowrap" }, h("span", {}, h("time", { datetime: snapshot.created_at, title: `${snapshot.created_at} UTC` }, time(snapshot.created_at)), h("span", { class: "quiet" }, ` · ${ago(snapshot.created_at)}`))),
      h("td", { "data-label": "Kind" }, snapshot.scheduled ? "schedule" : "by hand"),
      h("td", { "data-label": "Files", class: "right" }, count(snapshot.files)),
      h("td", { class: "actions" }, h("div", { class: "row" },
        vm.files ? button("Changes", "What changed since", () => changes.differences(vm, snapshot)) : null,
        may ? [
          button("Roll back", "Roll back to", () => changes.rollBack(vm, snapshot, again)),
          button("Clone", "Clone from", () => changes.cloneDialog(vm, snapshot.name)),
          button("Delete", "Delete snapshot", () => changes.remove(vm, snapshot, again))] : null)));
  };
  const shown = [...vm.snapshots].reverse().slice(0, SNAPSHOTS_MAX);
  const left = vm.snapshots.length - shown.length;
  return card("", "Snapshots",
    table(`Snapshots of ${vm.name}, newest first`, [["Snapshot"], ["Taken"], ["Kind"], ["Files", "right"], [""]], shown.map(one)),
    left ? h("p", { class: "quiet" }, `${count(left)} older ones are not shown; all: `, h("code", {}, changes.listCommand(vm))) : null);
}

function files(vm, may, again) {
  if (!vm.files) return null;
  const one = (file) => h("tr", { id: `file-${encodeURIComponent(file.path)}` },
    h("th", { scope: "row", class: "path" }, h("code", {}, file.path)),
    h("td", { "data-label": "Role" }, file.role),
    h("td", { "data-label": "Size", class: "right nowrap" }, bytes(file.size_bytes)),
    h("td", { "data-label": "Used", class: "right nowrap" }, bytes(file.used_bytes)),
    h("td", { class: "actions" }, may ? h("div", { class: "row" }, h("button", { class: "plain", "aria-label": `Assign ${file.path} to another VM`, onclick: () => changes.assignDialog({ datastore: vm.datastore, path: file.path }, again) }, "Assign")) : null));
  return card("", "Files", table(`Files of ${vm.name}`, [["File"], ["Role"], ["Size", "right"], ["Used", "right"], [""]], vm.files.map(one)));
}
