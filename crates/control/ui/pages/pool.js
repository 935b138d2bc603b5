// Are drives fine? When is it redundant again?

import { h } from "../dom.js";
import { ago, bytes, count, known, percent, share } from "../format.js";
import { card, jobRow, meter, poolLook, title, used, usedText } from "./parts.js";

const LETTERS = { ONLINE: "", FAILED: "F", MISSING: "M", REBUILDING: "R", SPARE: "S" };

export function view(live) {
  if (!live.status) return [title("Pool"), h("p", { class: "quiet" }, "Waiting for the store's first word")];
  const pools = live.status.pools.filter((pool) => !live.rest[0] || pool.name === live.rest[0]);
  if (!pools.length) return [title("Pool"), h("p", {}, `There is no pool ${live.rest[0]}. `, h("a", { href: "#/pool" }, "All pools"))];
  return pools.map((pool) => onePool(pool, live));
}

function onePool(pool, live) {
  const canLose = known(pool.failures_tolerated) ? `can lose ${pool.failures_tolerated} more` : "what it can lose is not known";
  const jobs = live.status.jobs
    .filter((job) => job.object === pool.name || job.object.startsWith(`${pool.name}/`));
  return [
    title(`Pool ${pool.name}`,
      h("span", { class: `pill ${poolLook[pool.state] || "none"}` }, pool.state),
      h("span", { class: "quiet" }, `${canLose} (${pool.failures_tolerated_normally} normally) · stripe ${pool.stripe_data}+${pool.stripe_parity}`)),
    h("div", { class: "grid" },
      card("", "Drives", map(pool), legend()),
      jobs.length ? card("", "Work on it", jobs.map((job) => jobRow(job))) : null,
      facts(pool), redundancy(pool), drives(pool)),
  ];
}

function map(pool) {
  return h("ol", { class: "slots", "aria-label": `Drives of ${pool.name} by slot` }, pool.drives.map((drive) =>
    h("li", { class: `slot ${drive.state}`, title: drive.reason || drive.path, "aria-label": `slot ${drive.slot}, ${drive.state}, ${usedText(drive)} used` },
      h("b", {}, `${drive.slot} ${LETTERS[drive.state] || ""}`),
      h("span", { class: "word" }, drive.state),
      h("span", { class: "small" }, ["FAILED", "MISSING"].includes(drive.state) ? "-" : `${usedText(drive)} used`),
      h("span", { class: "fill", css: { width: `${(used(drive) || 0) * 100}%` } }))));
}

const legend = () => h("p", { class: "quiet small legend-text" }, "F failed · M missing · R rebuilding · S spare; the bar shows how full a drive is");

function facts(pool) {
  const ratio = share(pool.used_bytes, pool.usable_bytes);
  const row = (name, value) => [h("dt", {}, name), h("dd", {}, value)];
  return card("half", "Space",
    h("p", { class: "big" }, percent(ratio), h("small", {}, ` of ${bytes(pool.usable_bytes)}`)),
    meter("Space used", ratio, ratio >= 0.95 ? "bad" : ratio >= 0.85 ? "warn" : ""),
    h("dl", { class: "facts" },
      row("Free", bytes(pool.free_bytes)), row("Held back", bytes(pool.reserved_bytes)),
      row("Clients stored", bytes(pool.logical_bytes)),
      row("Dedup", known(pool.dedup_ratio) ? `${pool.dedup_ratio.toFixed(2)}x` : "-"),
      row("Compression", known(pool.compression_ratio) ? `${pool.compression_ratio.toFixed(2)}x` : "-")));
}

function redundancy(pool) {
  const row = (name, value) => [h("dt", {}, name), h("dd", {}, value)];
  return card("half", "Integrity", h("dl", { class: "facts" },
    row("Last full scrub", pool.last_scrub ? ago(pool.last_scrub) : "never"),
    row("Units repaired", count(pool.repaired_units)),
    row("Stripes lost", count(pool.lost_stripes)),
    ...(pool.doubted_drives?.length ? row("In doubt until a scrub", `drives ${pool.doubted_drives.join(", ")}`) : []),
    row("Written stripes", count(pool.written_stripes)),
    row("Free stripes", count(pool.free_stripes)),
    row("Group", h("code", {}, pool.group))));
}

function drives(pool) {
  const columns = ["Slot", "State", "Path", "Used", "Size", "Errors", "Bad units", "Repaired"];
  const row = (drive) => h("tr", {},
    h("th", { scope: "row" }, `${pool.name}/${drive.slot}`),
    h("td", { "data-label": "State" }, `${drive.state}${drive.reason ? `: ${drive.reason}` : ""}`),
    h("td", { "data-label": "Path", class: "path" }, h("code", {}, drive.path)),
    h("td", { "data-label": "Used", class: "right" }, usedText(drive)),
    h("td", { "data-label": "Size", class: "right nowrap" }, bytes(drive.capacity_bytes)),
    h("td", { "data-label": "Errors", class: "right" }, count(known(drive.read_errors) ? drive.read_errors + (drive.write_errors || 0) : null)),
    h("td", { "data-label": "Bad units", class: "right" }, count(drive.check_errors)),
    h("td", { "data-label": "Repaired", class: "right" }, count(drive.repaired_units)));
  return card("", "Each drive", h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of drives" },
    h("table", { class: "cards" },
      h("thead", {}, h("tr", {}, columns.map((name, index) => h("th", { scope: "col", class: index > 2 ? "right" : "" }, name)))),
      h("tbody", {}, pool.drives.map(row)))));
}
