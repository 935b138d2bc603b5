// Latency over time, stacked by part: the height is the whole, each band is a part. Drawn by
// uPlot; a cursor moves by mouse and by arrow keys and is read aloud; the same numbers stand
// in a table for whoever prefers one. A time without data is a hole.

import { get } from "./api.js";
import { h, say } from "./dom.js";
import { count, known, ms, time } from "./format.js";

export const PARTS = [
  ["queue", "queue", "waiting for work to begin"], ["journal", "journal", "until it was safe on every leg"],
  ["mirror", "mirror", "the other site, beyond the journal here"],
  ["flash", "flash", "drives"], ["contention", "contention", "its turn, locks, room"], ["qos", "qos", "held back by the VM's limit"],
];
export const RANGES = [[900, "15 min"], [3600, "1 h"], [86400, "1 d"], [604800, "7 d"], [7776000, "90 d"]];
const REFRESH_MS = 15000;
const ROWS = 12;

const STORE = { path: "/v1/history?", isLive: true };
const chart = {
  plot: null, place: null, range: 900, points: [], step: 10, asked: 0, dark: null, asTable: false, source: STORE,
  // The moment that was picked, and who did what then.
  picked: null,
};

// What is shown from now on: the store as a whole, or what is at a path of the API.
export function showStore() { use(STORE); }
export function showPath(path) { use({ path, isLive: false }); }

function use(source) {
  if (chart.source.path === source.path) return;
  Object.assign(chart, { source, points: [], asked: 0, picked: null });
}

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;

// Points of the range: history, then what this page has seen live since.
function points(live) {
  const from = Date.now() / 1000 - chart.range;
  const past = chart.points.filter((point) => point.at >= from);
  const last = past.length ? past.at(-1).at : from;
  const fresh = chart.source.isLive && chart.range <= 3600 ? live.points.filter((point) => point.at > last + chart.step) : [];
  return past.concat(fresh.map((point) => ({ at: point.at, latency: point.latency, load: point.load })));
}

async function fetchPast(draw) {
  chart.asked = Date.now();
  const { path } = chart.source;
  try {
    const history = await get(`${path}last_seconds=${chart.range}`);
    if (path !== chart.source.path) return;
    chart.step = history.step_seconds;
    chart.points = history.points.map((point) => ({ at: Date.parse(point.at) / 1000, latency: point.latency_ms, load: point.load || point }));
    draw();
  } catch {
    // The next picture tries again; what is shown has its times beside it.
  }
}

export function refresh(draw) {
  if (Date.now() - chart.asked > REFRESH_MS) fetchPast(draw);
}

// The card's content: summary, legend, chart, and the same as a table.
export function view(live, draw) {
  const shown = points(live);
  const choose = (seconds) => { chart.range = seconds; chart.points = []; fetchPast(draw); draw(); };
  return [
    h("div", { class: "pair" },
      h("h2", {}, "Latency by part, milliseconds"),
      h("div", { class: "ranges", role: "group", "aria-label": "Time range" }, RANGES.map(([seconds, name]) =>
        h("button", { class: "plain", "aria-pressed": String(chart.range === seconds), onclick: () => choose(seconds) }, name)))),
    h("p", { class: "small" }, summary(shown)),
    h("div", { class: "legend", "aria-hidden": "true" }, PARTS.map(([part, name, says]) =>
      h("span", { css: { "--swatch": `var(--${part})` }, title: says }, name))),
    h("div", { id: "latency-chart", class: "chart", "data-keep": true, tabindex: 0, role: "img", "aria-label": `Latency by part over the last ${nameOf(chart.range)}. Arrow keys read values.` }),
    h("button", { class: "plain", "aria-expanded": String(chart.asTable), onclick: () => { chart.asTable = !chart.asTable; draw(); } }, chart.asTable ? "Hide table" : "Show as table"),
    chart.asTable ? table(shown) : null,
    h("div", { id: "contributors", "aria-live": "polite" }, contributors(draw)),
  ];
}

// Who did what at the moment that was picked in the chart, with most work first.
async function pick(at, draw) {
  chart.picked = { at, found: null };
  draw();
  try {
    const found = await get(`/v1/contributors?at=${encodeURIComponent(new Date(at * 1000).toISOString())}`);
    if (chart.picked && chart.picked.at === at) chart.picked.found = found;
  } catch (problem) {
    if (chart.picked && chart.picked.at === at) chart.picked.trouble = problem;
  }
  draw();
}

function contributors(draw) {
  const { picked } = chart;
  if (!picked) return h("p", { class: "quiet small" }, "Click a moment, or press Enter on it, to see which VMs did how much then.");
  const close = h("button", { class: "plain", onclick: () => { chart.picked = null; draw(); } }, "Close");
  const head = h("div", { class: "pair apart" }, h("h3", {}, `Who did what at ${time(picked.at * 1000)}`), close);
  if (picked.trouble) return [head, h("p", { class: "problem" }, picked.trouble.message)];
  if (!picked.found) return [head, h("p", { class: "quiet" }, "Asking")];
  if (!known(picked.found.at)) return [head, h("p", { class: "quiet" }, "Nothing is known of that moment.")];
  const before = (one) => {
    if (!known(one.before_cost_per_second)) return "-";
    return one.before_cost_per_second > 0 ? `x${(one.cost_per_second / one.before_cost_per_second).toFixed(1)}` : "new";
  };
  const row = (one) => h("tr", {},
    h("th", { scope: "row" }, one.vm ? h("a", { href: `#/vms/${encodeURIComponent(one.datastore)}/${encodeURIComponent(one.vm)}` }, one.vm) : "Files of no VM"),
    h("td", { "data-label": "Work", class: "right nowrap" }, `${one.share_percent.toFixed(0)} %`),
    h("td", { "data-label": "Beside the hour before", class: "right" }, before(one)),
    h("td", { "data-label": "Operations/s", class: "right" }, count(operations(one))),
    h("td", { "data-label": "Latency, ms", class: "right" }, ms(one.latency_ms.total)),
    h("td", { "data-label": "Slow part" }, one.slow_part || "-"));
  const columns = [["VM"], ["Work", "right"], ["Beside the hour before", "right"], ["Operations/s", "right"], ["Latency, ms", "right"], ["Slow part"]];
  return [head, h("div", { class: "scroll" }, h("table", { class: "cards", "aria-label": "VMs by their work at that moment" },
    h("thead", {}, h("tr", {}, columns.map(([name, look]) => h("th", { scope: "col", class: look }, name)))),
    h("tbody", {}, picked.found.rows.map(row))))];
}

const nameOf = (seconds) => RANGES.find(([range]) => range === seconds)[1];

function meanOf(shown, of) {
  const values = shown.map(of).filter(known);
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

function summary(shown) {
  const busy = shown.filter((point) => known(point.latency.total));
  if (!busy.length) return "No operation in that time.";
  const parts = PARTS.map(([part]) => [part, meanOf(busy, (point) => point.latency[part]) || 0]).sort((a, b) => b[1] - a[1]);
  const worst = Math.max(...busy.map((point) => point.latency.p99 || 0));
  return `Mean ${ms(meanOf(busy, (point) => point.latency.total))} ms, most of it ${parts[0][0]} (${ms(parts[0][1])} ms). Worst p99 of a second: ${ms(worst)} ms.`;
}

function table(shown) {
  const every = Math.max(1, Math.ceil(shown.length / ROWS));
  const rows = shown.filter((_, index) => index % every === 0).reverse();
  const cell = (value) => h("td", { class: "right" }, ms(value));
  return h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, ["Time", "Total", ...PARTS.map(([, name]) => name), "p99", "Operations/s"].map((name, index) => h("th", { scope: "col", class: index ? "right" : "" }, name)))),
    h("tbody", {}, rows.map((point) => h("tr", {},
      h("th", { scope: "row" }, time(point.at * 1000)), cell(point.latency.total), PARTS.map(([part]) => cell(point.latency[part])), cell(point.latency.p99),
      h("td", { class: "right" }, count(operations(point.load))))))));
}

const operations = (load) => {
  const rates = [load.reads_per_second, load.writes_per_second, load.others_per_second].filter(known);
  return rates.length ? rates.reduce((sum, rate) => sum + rate, 0) : null;
};

// Running sums from the bottom up; a hole where nothing is known, and between points that
// are further apart than their step.
function columns(shown) {
  const rows = [];
  shown.forEach((point, index) => {
    const before = shown[index - 1];
    if (before && point.at - before.at > 3 * chart.step) rows.push({ at: before.at + chart.step, sums: PARTS.map(() => null) });
    let sum = 0;
    const isKnown = known(point.latency.total);
    rows.push({ at: point.at, sums: PARTS.map(([part]) => (isKnown ? (sum += point.latency[part] || 0) : null)) });
  });
  return [rows.map((row) => row.at), ...PARTS.map((_, part) => rows.map((row) => row.sums[part]))];
}

function make(place, data) {
  const axis = { stroke: css("quiet"), grid: { stroke: css("line"), width: 1 }, ticks: { stroke: css("line"), width: 1 }, font: "12px system-ui, sans-serif" };
  const two = (number) => String(number).padStart(2, "0");
  const clock = (seconds) => { const at = new Date(seconds * 1000); return chart.range > 86400 ? `${two(at.getMonth() + 1)}-${two(at.getDate())}` : `${two(at.getHours())}:${two(at.getMinutes())}`; };
  const series = PARTS.map(([part], index) => ({
    stroke: css(part), width: 1.5, fill: index === 0 ? `${css(part)}99` : undefined, points: { show: false }, spanGaps: false,
  }));
  const bands = PARTS.slice(1).map(([part], index) => ({ series: [index + 2, index + 1], fill: `${css(part)}99` }));
  return new window.uPlot({
    width: place.clientWidth, height: 210, legend: { show: false }, cursor: { y: false, drag: { x: false, y: false } },
    scales: { x: { time: true, range: () => [Date.now() / 1000 - chart.range, Date.now() / 1000] }, y: { range: (_, __, max) => [0, max > 0 ? max * 1.15 : 1] } },
    axes: [{ ...axis, values: (_, values) => values.map(clock) }, { ...axis, size: 48, values: (_, values) => values.map((value) => ms(value)) }],
    series: [{}, ...series], bands,
  }, data, place);
}

// After each draw: the plot in its place, in its size and in the colours of the moment.
export function after(main, live, draw) {
  const place = main.querySelector("#latency-chart");
  if (!place || !window.uPlot) return;
  const data = columns(points(live));
  const isNew = chart.place !== place || chart.dark !== isDark();
  if (isNew) {
    if (chart.plot) chart.plot.destroy();
    place.replaceChildren();
    [chart.place, chart.dark] = [place, isDark()];
    chart.plot = make(place, data);
    place.onkeydown = (event) => (event.key === "Enter" ? pickCursor(draw) : move(event));
    place.onclick = () => pickCursor(draw);
  } else {
    if (chart.plot.width !== place.clientWidth) chart.plot.setSize({ width: place.clientWidth, height: 210 });
    chart.plot.setData(data);
  }
}

function pickCursor(draw) {
  const at = chart.plot && chart.plot.data[0][chart.plot.cursor.idx];
  if (known(at)) pick(at, draw);
}

function move(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
  if (!step || !chart.plot) return;
  event.preventDefault();
  const [times, ...sums] = chart.plot.data;
  const last = times.length - 1;
  const now = chart.plot.cursor.idx ?? last;
  const at = Math.min(last, Math.max(0, Number.isFinite(step) ? now + step : step < 0 ? 0 : last));
  chart.plot.setCursor({ left: chart.plot.valToPos(times[at], "x"), top: 0 });
  const parts = PARTS.map(([part], index) => {
    const value = sums[index][at];
    return known(value) ? `${part} ${ms(value - (index ? sums[index - 1][at] : 0))}` : null;
  });
  say(parts[0] ? `${time(times[at] * 1000)}: ${ms(sums.at(-1)[at])} milliseconds, ${parts.join(", ")}` : `${time(times[at] * 1000)}: no operation`);
}
