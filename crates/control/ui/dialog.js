// Dialogs. A change is planned first (dry run), shown with what it would do and the command
// that does the same, and made only then; what destroys something asks for its name.

import { call } from "./api.js";
import { h, show, say } from "./dom.js";

export function problemBox(problem) {
  const steps = (problem.do || []).map((step) => step.cli);
  return h("div", { class: "problem", role: "alert" },
    `${problem.code ? `${problem.code}: ` : ""}${problem.message}`,
    (problem.why || []).map((why) => h("p", {}, why)),
    (problem.fields || []).map((one) => h("p", {}, `${one.field}: ${one.detail}`)),
    steps.length ? h("p", {}, "Do: ", steps.join("; ")) : null);
}

export function sameAs(command) {
  return h("div", { class: "same" },
    h("span", { class: "quiet" }, "Same as"),
    h("code", { tabindex: 0, "aria-label": "The same as a command" }, command),
    h("button", { type: "button", class: "plain", onclick: () => copy(command) }, "Copy"));
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied");
  } catch {
    say("This browser does not let pages copy; select the text instead");
  }
}

// Opens a modal dialog; `fill(close)` returns its content. Focus returns to where it was.
export function open(title, fill) {
  const before = document.activeElement;
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" });
  const close = () => dialog.close();
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (before && before.isConnected) before.focus();
  });
  dialog.append(h("div", { class: "body" }, h("h2", { id: "dialog-title" }, title), fill(close)));
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

// Plans a change, asks, makes it. `change`: {title, method, path, body, command, verb}, with a
// `note` for people, and `then` for a second call that needs the first: {method, path, body,
// would}.
export async function ask(change, done) {
  let plan = null;
  let refusal = null;
  try {
    plan = await call(change.method, change.path, { body: change.body, dryRun: true });
  } catch (problem) {
    refusal = problem;
  }
  open(change.title, (close) => (refusal ? refused(refusal, close) : planned(change, plan, close, done)));
}

function refused(problem, close) {
  return [problemBox(problem), h("div", { class: "actions" }, h("button", { type: "button", onclick: close }, "Close"))];
}

function planned(change, plan, close, done) {
  const severe = Boolean(plan.confirm);
  const then = change.then || { would: [] };
  let first = null;
  const trouble = h("div", {});
  const typed = h("input", { id: "confirm-name", type: "text", autocomplete: "off", spellcheck: "false" });
  const go = h("button", { class: severe ? "severe" : "main", disabled: severe }, change.verb);
  typed.oninput = () => { go.disabled = typed.value !== plan.confirm; };
  const submit = async (event) => {
    event.preventDefault();
    if (severe && typed.value !== plan.confirm) return;
    go.disabled = true;
    try {
      first = first || await call(change.method, change.path, { body: change.body, confirm: plan.confirm });
      const made = change.then ? await call(then.method, then.path, { body: then.body }) : first;
      close();
      say(`Done: ${change.title}`);
      done(made);
    } catch (problem) {
      show(trouble, problemBox(problem));
      go.disabled = false;
    }
  };
  return h("form", { onsubmit: submit, class: "plan" },
    h("p", {}, "This will"),
    h("ul", {}, [...plan.would, ...then.would].map((effect) => h("li", {}, effect))),
    change.note ? h("p", {}, change.note) : null,
    severe ? h("div", { class: "field" },
      h("label", { for: "confirm-name" }, `Type ${plan.confirm} to confirm`), typed) : null,
    sameAs(change.command),
    trouble,
    h("div", { class: "actions" }, h("button", { type: "button", onclick: close }, "Cancel"), go));
}
