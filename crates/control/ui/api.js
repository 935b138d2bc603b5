// Calls to /v1. An answer is the data of a document; a refusal is thrown as Problem, with
// the code, the reasons and the steps the server gave.

export class Problem extends Error {
  constructor(document) {
    super(document.detail || document.title || "no answer");
    Object.assign(this, { status: 0, code: "", why: [], do: [] }, document);
  }
}

const unreachable = (why) =>
  new Problem({ detail: "the store does not answer", why: [String(why)], code: "VH7503", status: 0 });

export async function call(method, path, { body, confirm, etag, dryRun } = {}) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (confirm) headers.Confirm = segment(confirm);
  if (etag) headers["If-Match"] = etag;
  if (method === "POST" && !dryRun) headers["Idempotency-Key"] = crypto.randomUUID();
  const url = dryRun ? `${path}${path.includes("?") ? "&" : "?"}dry_run=true` : path;
  let response;
  try {
    response = await fetch(url, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body), credentials: "same-origin",
    });
  } catch (why) {
    throw unreachable(why);
  }
  const answer = await response.json().catch(() => null);
  if (!answer) throw unreachable(`status ${response.status}`);
  if (!response.ok) throw new Problem(answer);
  return answer.data;
}

export const get = (path) => call("GET", path);

export const segment = encodeURIComponent;
