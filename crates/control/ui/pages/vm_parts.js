// What the pages about VMs have in common: names, addresses, sums, words.

import { segment } from "../api.js";
import { problemBox } from "../dialog.js";
import { h } from "../dom.js";
import { duration, time } from "../format.js";

// As the CLI names a VM, never ambiguous.
export const key = (vm) => `${vm.datastore}/${vm.name}`;

export const pageOf = (vm) => `#/vms/${segment(vm.datastore)}/${segment(vm.name)}`;

export const pathOf = (vm, rest = "") => `/v1/vms/${segment(vm.datastore)}/${segment(vm.name)}${rest}`;

export const snapshotPath = (vm, name, rest = "") => pathOf(vm, `/snapshots/${segment(name)}${rest}`);

// Of a VM whose files are gone nothing is known.
const sum = (vm, field) => (vm.files ? vm.files.reduce((all, file) => all + file[field], 0) : null);

export const sizeOf = (vm) => sum(vm, "size_bytes");

export const usedOf = (vm) => sum(vm, "used_bytes");

export function scheduleWords(schedule) {
  if (schedule === undefined) return "-";
  return schedule ? `every ${duration(schedule.every_seconds)}, ${schedule.keep} kept` : "by hand only";
}

// Always there, so that nothing below it moves to another element when trouble comes or goes.
export const troubleOf = ({ trouble, at }) => h("div", {},
  trouble ? [problemBox(trouble), at ? h("p", { class: "quiet" }, `What is below was true at ${time(at)}`) : null] : null);
