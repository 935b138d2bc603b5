// Logging in: by the address that `vmhold ui` prints, or with a token.

import { call } from "../api.js";
import { h, show } from "../dom.js";
import { problemBox } from "../dialog.js";

export function view(loggedIn) {
  const secret = h("input", { id: "token", type: "password", autocomplete: "off", required: true });
  const trouble = h("div", {});
  const submit = async (event) => {
    event.preventDefault();
    const word = secret.value.trim();
    const body = word.startsWith("vmh_") ? { token: word } : { login: word };
    try {
      loggedIn(await call("POST", "/v1/session", { body }));
    } catch (problem) {
      show(trouble, problemBox(problem));
      secret.select();
    }
  };
  return h("div", { class: "alone" },
    h("div", { class: "card" },
      h("h1", {}, "Log in"),
      h("p", { class: "quiet" }, "On the store's machine this prints an address that logs you in:"),
      h("pre", {}, "vmhold ui"),
      h("form", { onsubmit: submit },
        h("div", { class: "field" },
          h("label", { for: "token" }, "Or a login word or token"), secret,
          h("p", { class: "hint" }, "It is kept in a cookie that scripts cannot read, for at most a week.")),
        trouble,
        h("button", { class: "main" }, "Log in"))));
}
