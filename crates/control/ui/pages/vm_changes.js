// What can be changed about a VM. Each is planned by the server first and shown with its
// effects and the command that does the same.

import { get, segment } from "../api.js";
import { h, show } from "../dom.js";
import { ask, open, problemBox } from "../dialog.js";
import { bytes, cli, count, word } from "../format.js";
import { key, pageOf, pathOf, snapshotPath } from "./vm_parts.js";

const UNITS = [["minutes", 60, "m"], ["hours", 3600, "h"], ["days", 86400, "d"], ["seconds", 1, "s"]];
const RANGES_SHOWN = 8;

const named = (vm) => word(key(vm));

export const listCommand = (vm) => cli(`vm snapshot list ${named(vm)}`);

// As the CLI calls a snapshot that was given no name.
const nameOfNow = () => new Date().toISOString().slice(0, 19).replace("T", "_");

const go = (datastore, name) => { location.hash = pageOf({ datastore, name }); };

const text = (id, value, more) => h("input", { id, type: "text", value, required: true, autocomplete: "off", spellcheck: "false", ...more });

const field = (input, label, hint) => h("div", { class: "field" }, h("label", { for: input.id }, label), input, hint ? h("p", { class: "hint" }, hint) : null);

// A dialog with fields; `then()` is called when they are filled in.
function form(heading, fields, then) {
  const dialog = open(heading, (close) => h("form", { onsubmit: (event) => { event.preventDefault(); close(); then(); } },
    fields,
    h("div", { class: "actions" }, h("button", { type: "button", onclick: close }, "Cancel"), h("button", { class: "main" }, "Check"))));
  dialog.querySelector("input, select").focus();
}

export function snapshotDialog(vm, done) {
  const name = text("snapshot-name", nameOfNow());
  form(`Snapshot of ${vm.name}`, field(name, "Name", "The VM may run. Snapshots named auto_… are the schedule's, and it deletes the oldest of them."), () => {
    const body = { name: name.value.trim() };
    ask({ title: `Snapshot ${body.name} of ${vm.name}`, method: "POST", path: pathOf(vm, "/snapshots"), body, verb: "Take it", command: cli(`vm snapshot create ${named(vm)} ${word(body.name)}`) }, done);
  });
}

export function remove(vm, snapshot, done) {
  ask({
    title: `Delete snapshot ${snapshot.name} of ${vm.name}`, method: "DELETE", path: snapshotPath(vm, snapshot.name), verb: "Delete",
    command: cli(`vm snapshot delete ${named(vm)} ${word(snapshot.name)} --yes`),
  }, done);
}

export function rollBack(vm, snapshot, done) {
  ask({
    title: `Roll ${vm.name} back to ${snapshot.name}`, method: "POST", path: snapshotPath(vm, snapshot.name, "/rollback"), verb: "Roll back",
    note: "Shut the VM down first: a guest that runs does not expect its disks to change. To keep what is there now, take a snapshot before.",
    command: cli(`vm rollback ${named(vm)} ${word(snapshot.name)} --confirm=${word(vm.name)}`),
  }, (made) => { done(); rolledBack(snapshot, made); });
}

function rolledBack(snapshot, made) {
  const list = (what, paths) => (paths.length ? [h("p", {}, what), h("ul", {}, paths.map((path) => h("li", {}, h("code", {}, path))))] : null);
  open(`${made.vm} is as in ${snapshot.name}`, (close) => [
    h("p", {}, `${count(made.files.length + made.restored.length)} files have the content they had then.`),
    list("Gone, and there again:", made.restored),
    list("Left alone, since the snapshot does not have them:", made.left),
    h("div", { class: "actions" }, h("button", { class: "main", onclick: close }, "Close"))]);
}

export function cloneDialog(vm, from) {
  const name = text("clone-name", "");
  const now = h("option", { value: "" }, "as it is now");
  const source = h("select", { id: "clone-from" }, vm.files ? now : null,
    [...vm.snapshots].reverse().map((one) => h("option", { value: one.name, selected: one.name === from }, `as in ${one.name}`)));
  form(`Clone ${vm.name}`, [
    field(name, "Name of the new VM", "For Proxmox VE a free number. Blocks are shared until one of the two writes them over."),
    field(source, "What it gets", "As it is now: a snapshot is taken first, and stays."),
  ], () => clone(vm, source.value, name.value.trim()));
}

function clone(vm, from, name) {
  const made = (clone) => go(clone.datastore, clone.vm);
  const body = { name };
  const heading = `Clone ${vm.name} as ${name}`;
  const command = `vm clone ${named(vm)} ${word(name)}`;
  const order = (snapshot) => ({ method: "POST", path: snapshotPath(vm, snapshot, "/clone"), body });
  if (from) return ask({ title: heading, ...order(from), verb: "Clone it", command: cli(`${command} --from ${word(from)}`) }, made);
  const snapshot = `${nameOfNow()}_for_${name}`;
  ask({
    title: heading, method: "POST", path: pathOf(vm, "/snapshots"), body: { name: snapshot }, verb: "Clone it", command: cli(command),
    then: { ...order(snapshot), would: [`make VM ${name} of the files in it`, "share their blocks until one of the two writes them over"] },
  }, made);
}

export function renameDialog(vm) {
  const name = text("vm-name", vm.name);
  form(`Rename ${vm.name}`, field(name, "New name", "Its files stay where they are; its snapshots and its schedule go with it."), () => {
    const body = { name: name.value.trim() };
    ask({ title: `Rename ${vm.name} to ${body.name}`, method: "POST", path: pathOf(vm, "/rename"), body, verb: "Rename it", command: cli(`vm rename ${named(vm)} ${word(body.name)}`) },
      (made) => go(made.datastore, made.vm));
  });
}

// The largest unit that a number of seconds is whole in.
function inUnits(seconds) {
  const [unit, each] = [...UNITS].sort((a, b) => b[1] - a[1]).find(([, each]) => seconds % each === 0);
  return [unit, seconds / each];
}

export function scheduleDialog(vm, done) {
  const there = vm.schedule || { every_seconds: 3600, keep: 24 };
  const [unit, number] = inUnits(there.every_seconds);
  const every = text("every", String(number), { type: "number", min: 1 });
  const units = h("select", { id: "every-unit", "aria-label": "Unit" }, UNITS.map(([name]) => h("option", { value: name, selected: name === unit }, name)));
  const keep = text("keep", String(there.keep), { type: "number", min: 1, max: 10000 });
  const off = h("input", { id: "schedule-off", type: "checkbox" });
  off.onchange = () => [every, units, keep].forEach((input) => { input.disabled = off.checked; });
  form(`Schedule of ${vm.name}`, [
    h("div", { class: "field" }, h("label", { for: "every" }, "A snapshot every"), h("div", { class: "side" }, every, units)),
    field(keep, "Of these are kept", "The oldest beyond that are deleted. Snapshots by hand are never counted and never deleted."),
    vm.schedule ? h("div", { class: "field" }, h("label", { class: "check", for: "schedule-off" }, off, "No schedule any more"), h("p", { class: "hint" }, "Snapshots that are there stay.")) : null,
  ], () => {
    const [, each, letter] = UNITS.find(([name]) => name === units.value);
    const schedule = off.checked ? null : { every_seconds: Number(every.value) * each, keep: Number(keep.value) };
    const options = schedule ? `--every ${every.value}${letter} --keep ${schedule.keep}` : "--off";
    ask({ title: `Schedule of ${vm.name}`, method: "POST", path: pathOf(vm, "/schedule"), body: { schedule }, verb: schedule ? "Set it" : "End it", command: cli(`vm schedule ${named(vm)} ${options}`) }, done);
  });
}

// `at`: the datastore and the path, if they are known.
export async function assignDialog(at, done) {
  const [vms, datastores] = await Promise.all([get("/v1/vms").catch(() => []), at.datastore ? [{ name: at.datastore }] : get("/v1/datastores").catch(() => [])]);
  const datastore = h("select", { id: "assign-datastore" }, datastores.map((one) => h("option", { value: one.name }, one.name)));
  const path = text("assign-path", at.path || "", { readonly: Boolean(at.path) });
  const vm = text("assign-vm", "", { required: false, list: "assign-vms" });
  const names = h("datalist", { id: "assign-vms" }, [...new Set(vms.map((one) => one.name))].map((name) => h("option", { value: name })));
  form(at.path ? "Assign a file to another VM" : "Assign a file to a VM", [
    at.datastore ? null : field(datastore, "Datastore"),
    field(path, "Path of the file", at.path ? null : "From the top of the datastore, as in images/100/notes.txt"),
    field(vm, "VM", "A VM that is there, or a new name. Empty: the path of the file decides again."), names,
  ], () => {
    const body = { path: at.path ?? path.value.trim(), vm: vm.value.trim() || null };
    const of = at.datastore || datastore.value;
    ask({
      title: `Assign ${body.path}`, method: "POST", path: `/v1/vm-assignments/${segment(of)}`, body, verb: "Assign it",
      command: cli(`vm assign ${word(of)} ${word(body.path)}${body.vm ? ` ${word(body.vm)}` : ""}`),
    }, done);
  });
  if (at.path) vm.focus();
}

export function differences(vm, snapshot) {
  const place = h("div", {}, h("p", { class: "quiet" }, "Comparing"));
  open(`Changed since ${snapshot.name}`, (close) => [place, h("div", { class: "actions" }, h("button", { class: "main", onclick: close }, "Close"))]);
  get(snapshotPath(vm, snapshot.name, "/differences")).then(
    (found) => show(place, changed(found)),
    (problem) => show(place, problemBox(problem)));
}

function changed(found) {
  const files = found.files.filter((file) => file.extents.length || file.older_size_bytes !== file.newer_size_bytes);
  if (!files.length) return h("p", {}, `${found.vm} did not change since.`);
  return h("ul", { class: "plain-list" }, files.map((file) => {
    const ranges = file.extents.slice(0, RANGES_SHOWN).map((one) => `${one.offset_bytes}+${one.length_bytes}`);
    const more = file.extents.length - ranges.length;
    return h("li", { class: "change" }, h("code", {}, file.path),
      h("p", { class: "quiet small" }, `${bytes(file.extents.reduce((all, one) => all + one.length_bytes, 0))} in ${count(file.extents.length)} ranges; size ${bytes(file.older_size_bytes)}, now ${bytes(file.newer_size_bytes)}`),
      h("p", { class: "mono small" }, `${ranges.join(" ")}${more > 0 ? ` and ${more} more` : ""}`));
  }));
}
