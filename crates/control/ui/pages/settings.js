// Who may in: this session, the fingerprint, tokens.

import { call, get, segment } from "../api.js";
import { h } from "../dom.js";
import { ask, copy, open, problemBox } from "../dialog.js";
import { cli, time } from "../format.js";
import { loggedOut } from "../main.js";
import { card, title } from "./parts.js";

const page = { tokens: null, trouble: null };

export function enter(rest, draw) {
  load(draw);
}

async function load(draw) {
  try {
    [page.tokens, page.trouble] = [await get("/v1/tokens"), null];
  } catch (problem) {
    page.trouble = problem.status === 403 ? null : problem;
  }
  draw();
}

export function view(live, draw) {
  const row = (name, value) => [h("dt", {}, name), h("dd", {}, value)];
  const session = live.session;
  const keys = localStorage.getItem("keys") !== "off";
  return [
    title("Settings"),
    page.trouble ? problemBox(page.trouble) : null,
    h("div", { class: "grid" },
      card("half", "This session",
        h("dl", { class: "facts" }, row("Logged in as", session.who), row("Role", session.role)),
        h("p", {}),
        h("button", { onclick: logout }, "Log out")),
      card("half", "Certificate",
        h("p", { class: "quiet" }, "The SHA-256 fingerprint of this API. The certificate your browser shows must have the same."),
        h("p", { class: "mono small hash" }, session.fingerprint || "-")),
      session.role === "viewer" ? null : tokens(session, draw),
      card("half", "Keyboard",
        h("label", { class: "check", for: "keys" },
          h("input", { id: "keys", type: "checkbox", checked: keys, onchange: (event) => localStorage.setItem("keys", event.target.checked ? "on" : "off") }),
          "Single keys do things (? lists them)"))),
  ];
}

async function logout() {
  await call("DELETE", "/v1/session").catch(() => {});
  loggedOut();
}

function tokens(session, draw) {
  const isAdmin = session.role === "admin";
  const columns = ["Token", "Role", "Made", "Ends", "Last used", ""];
  const row = (one) => h("tr", {},
    h("th", { scope: "row" }, one.name),
    h("td", { "data-label": "Role" }, one.role),
    h("td", { "data-label": "Made", class: "nowrap" }, time(one.created_at)),
    h("td", { "data-label": "Ends", class: "nowrap" }, one.expires_at ? time(one.expires_at) : "never"),
    h("td", { "data-label": "Last used", class: "nowrap" }, one.last_used_at ? time(one.last_used_at) : "never"),
    h("td", { class: "right" }, isAdmin ? h("button", { class: "plain", "aria-label": `Delete token ${one.name}`, onclick: () => remove(one, draw) }, "Delete") : null));
  const list = page.tokens || [];
  return card("", "Tokens",
    h("p", { class: "quiet" }, "Tools log in with a token: Prometheus, scripts, the CLI on another machine."),
    list.length ? h("div", { class: "scroll" }, h("table", { class: "cards" },
      h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name || h("span", { class: "unseen" }, "Actions"))))),
      h("tbody", {}, list.map(row)))) : h("p", {}, "No token has been made."),
    isAdmin ? h("p", {}, h("button", { onclick: () => create(draw) }, "New token")) : null);
}

function remove(one, draw) {
  ask({ title: `Delete token ${one.name}`, method: "DELETE", path: `/v1/tokens/${segment(one.name)}`, verb: "Delete", command: cli(`token delete ${one.name}`) }, () => load(draw));
}

function create(draw) {
  const name = h("input", { id: "token-name", type: "text", required: true, autocomplete: "off", spellcheck: "false" });
  const role = h("select", { id: "token-role" }, ["viewer", "operator", "admin"].map((one) => h("option", { value: one }, one)));
  const days = h("input", { id: "token-days", type: "number", min: 1, max: 3650, placeholder: "for ever" });
  open("New token", (close) => h("form", {
    onsubmit: (event) => {
      event.preventDefault();
      const seconds = days.value ? Number(days.value) * 86400 : null;
      const body = { name: name.value.trim(), role: role.value, lifetime_seconds: seconds };
      close();
      const command = cli(`token create ${body.name} --role ${body.role}${seconds ? ` --lifetime ${days.value}d` : ""}`);
      ask({ title: `New token ${body.name}`, method: "POST", path: "/v1/tokens", body, verb: "Make it", command }, (made) => { shown(made); load(draw); });
    },
  },
    h("div", { class: "field" }, h("label", { for: "token-name" }, "Name"), name, h("p", { class: "hint" }, "Stands in the audit log.")),
    h("div", { class: "field" }, h("label", { for: "token-role" }, "Role"), role, h("p", { class: "hint" }, "Viewers look, operators make daily changes, admins do everything.")),
    h("div", { class: "field" }, h("label", { for: "token-days" }, "Days it lives"), days),
    h("div", { class: "actions" }, h("button", { type: "button", onclick: close }, "Cancel"), h("button", { class: "main" }, "Check")))).querySelector("input").focus();
}

function shown(made) {
  open(`Token ${made.name}`, (close) => [
    h("p", {}, "This is the only time its secret is shown."),
    h("p", { class: "secret" }, made.secret),
    h("div", { class: "actions" }, h("button", { onclick: () => copy(made.secret) }, "Copy"), h("button", { class: "main", onclick: close }, "I have it")),
  ]);
}
