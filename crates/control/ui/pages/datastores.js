// Who mounts what, and how?

import { get, segment } from "../api.js";
import { h, show } from "../dom.js";
import { ask, copy, open, problemBox } from "../dialog.js";
import { bytes, cli, count } from "../format.js";
import { card, title } from "./parts.js";

const PLATFORMS = [["proxmox", "Proxmox VE"], ["proxmox-plugin", "Proxmox VE, plugin"], ["esxi", "VMware ESXi"], ["xcp-ng", "XCP-ng"], ["libvirt", "libvirt"], ["linux", "Linux"]];
const page = { list: null, trouble: null, timer: null };

export function enter(rest, draw) {
  load(draw);
}

async function load(draw) {
  try {
    [page.list, page.trouble] = [await get("/v1/datastores"), null];
  } catch (problem) {
    page.trouble = problem;
  }
  draw();
}

export function view(live, draw) {
  const may = live.session.role !== "viewer";
  const create = may ? h("div", { class: "tools" }, h("button", { class: "main", onclick: () => createDialog(draw) }, "New datastore")) : null;
  return [
    title("Datastores", create),
    page.trouble ? problemBox(page.trouble) : null,
    h("div", { class: "grid" }, page.list ? table(live, draw) : null),
  ];
}

function table(live, draw) {
  if (!page.list.length) return card("", null, h("p", {}, "There is no datastore yet. Hosts mount datastores and put VMs on them."));
  const isAdmin = live.session.role === "admin";
  const columns = ["Datastore", "Export", "Files", "Stored", "Free", "Mounted by", "Access", ""];
  const row = (one) => h("tr", {},
    h("th", { scope: "row" }, one.name),
    h("td", { "data-label": "Export" }, h("code", {}, one.export)),
    h("td", { "data-label": "Files", class: "right" }, count(one.files)),
    h("td", { "data-label": "Stored", class: "right nowrap" }, bytes(one.logical_bytes)),
    h("td", { "data-label": "Free", class: "right nowrap" }, bytes(one.free_bytes)),
    h("td", { "data-label": "Mounted by", class: "right" }, count(one.mounts)),
    h("td", { "data-label": "Access" }, one.allow.length ? one.allow.join(", ") : "everyone"),
    h("td", { class: "right nowrap" },
      h("button", { class: "plain", onclick: () => mountDialog(one), "aria-label": `How to mount ${one.name}` }, "Mount"),
      isAdmin ? h("button", { class: "plain", onclick: () => deleteDialog(one, draw), "aria-label": `Delete ${one.name}` }, "Delete") : null));
  return card("", null, h("div", { class: "scroll" }, h("table", { class: "cards" },
    h("thead", {}, h("tr", {}, columns.map((name, index) => h("th", { scope: "col", class: index > 1 && index < 6 ? "right" : "" }, name || h("span", { class: "unseen" }, "Actions"))))),
    h("tbody", {}, page.list.map(row)))));
}

function createDialog(draw) {
  const name = h("input", { id: "new-name", type: "text", required: true, autocomplete: "off", spellcheck: "false" });
  const allow = h("input", { id: "new-allow", type: "text", placeholder: "10.0.0.0/8, 192.168.1.0/24", autocomplete: "off" });
  const squash = h("input", { id: "new-squash", type: "checkbox" });
  open("New datastore", (close) => h("form", {
    onsubmit: (event) => {
      event.preventDefault();
      const networks = allow.value.split(",").map((one) => one.trim()).filter(Boolean);
      const body = { name: name.value.trim(), root_squash: squash.checked, allow: networks };
      const options = `${networks.length ? ` --allow ${networks.join(",")}` : ""}${squash.checked ? " --root-squash" : ""}`;
      close();
      ask({ title: `New datastore ${body.name}`, method: "POST", path: "/v1/datastores", body, verb: "Make it", command: cli(`datastore create ${body.name}${options}`) }, () => load(draw));
    },
  },
    h("div", { class: "field" }, h("label", { for: "new-name" }, "Name"), name,
      h("p", { class: "hint" }, "Also its export path. Letters, digits, - _ .")),
    h("div", { class: "field" }, h("label", { for: "new-allow" }, "Networks that may mount it"), allow,
      h("p", { class: "hint" }, "Empty: everyone.")),
    h("div", { class: "field" }, h("label", { class: "check", for: "new-squash" }, squash, "Make root of clients nobody"),
      h("p", { class: "hint" }, "Hypervisors need root.")),
    h("div", { class: "actions" }, h("button", { type: "button", onclick: close }, "Cancel"), h("button", { class: "main" }, "Check")))).querySelector("input").focus();
}

function deleteDialog(one, draw) {
  ask({ title: `Delete datastore ${one.name}`, method: "DELETE", path: `/v1/datastores/${segment(one.name)}`, verb: "Delete", command: cli(`datastore delete ${one.name} --confirm=${one.name}`) }, () => load(draw));
}

function mountDialog(one) {
  const place = h("div", {});
  const choice = h("select", { id: "platform" }, PLATFORMS.map(([id, name]) => h("option", { value: id }, name)));
  const look = async () => {
    try {
      const info = await get(`/v1/datastores/${segment(one.name)}/mount-info?for=${choice.value}`);
      const text = info.text || info.command || Object.values(info).filter((value) => typeof value === "string").join("\n");
      show(place, h("pre", { tabindex: 0, "aria-label": "Command that mounts it" }, text),
        h("button", { type: "button", onclick: () => copy(text) }, "Copy"));
    } catch (problem) {
      show(place, problemBox(problem));
    }
  };
  choice.onchange = look;
  open(`Mount ${one.name}`, (close) => [
    h("div", { class: "field" }, h("label", { for: "platform" }, "On"), choice), place,
    h("div", { class: "actions" }, h("button", { class: "main", onclick: close }, "Close"))]);
  look();
}
