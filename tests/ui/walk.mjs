// A walk through the web UI in headless Chromium, as a person would do it: log in with the
// printed address, look at every page in light and dark, wide and at 320 px, make a
// datastore, lose a drive and see it, delete the datastore by typing its name; by keyboard
// where it says so. Fails on: a script error, anything the policy had to stop, a request to
// elsewhere, a serious accessibility finding, text that does not fit.
//
//   npm install --no-save playwright-core axe-core      (in any folder; name it in NODE_PATH)
//   node tests/ui/walk.mjs target/debug/vmhold [folder for screenshots]

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

const require = createRequire(join(process.env.NODE_PATH || process.cwd(), "walk.js"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const program = process.argv[2];
const shots = process.argv[3] || mkdtempSync(join(tmpdir(), "vmhold-shots-"));
const folder = mkdtempSync(join(tmpdir(), "vmhold-walk-"));
const demo = join(folder, "demo");
const failures = [];
const check = (holds, what) => { if (!holds) failures.push(what); };

function vmhold(...words) {
  const text = execFileSync(program, [...words, "--json", "--dir", demo], { encoding: "utf8" });
  return JSON.parse(text).data;
}

const PAGES = ["overview", "datastores", "pool", "activity", "settings"];
const ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

async function settled(page, name) {
  await page.waitForFunction((wanted) => location.hash.startsWith(`#/${wanted}`) && document.querySelector("main h1") && document.querySelector("main .card"), name);
}

async function accessible(page, name) {
  await page.addScriptTag({ content: axe }).catch(() => {});
  const result = await page.evaluate(() => window.axe ? window.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"] }) : null);
  check(result, `${name}: the scan did not run`);
  for (const finding of result ? result.violations : []) {
    if (["serious", "critical"].includes(finding.impact)) {
      failures.push(`${name}: ${finding.id} (${finding.impact}): ${finding.nodes.slice(0, 3).map((node) => node.html).join(" | ")}`);
    }
  }
}

const fits = (page) => page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);

async function look(browser, state, scheme, width) {
  const context = await browser.newContext({
    ignoreHTTPSErrors: true, colorScheme: scheme, viewport: { width, height: width < 500 ? 720 : 800 }, storageState: state, bypassCSP: true,
  });
  const page = await context.newPage();
  for (const name of PAGES) {
    await page.goto(`${origin}/#/${name}`);
    await settled(page, name);
    await page.waitForFunction(() => document.querySelector("header .live") && !document.querySelector("header .paused"));
    const label = `${name}-${scheme}-${width}`;
    check(await fits(page), `${label}: the page is wider than the window`);
    await page.screenshot({ path: join(shots, `${label}.png`), fullPage: true });
    await accessible(page, label);
  }
  await context.close();
}

mkdirSync(shots, { recursive: true });
const started = vmhold("quickstart", "--background", "--memory", "--size", "96MiB", "--drives", "8", "--ports-from", "0");
const origin = started.api;
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ARGUMENTS });
try {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 800 } });
  const page = await context.newPage();
  page.on("pageerror", (error) => failures.push(`script error: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error" && !/401|404|409|ERR_CONNECTION_REFUSED/.test(message.text())) failures.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => check(request.url().startsWith(origin) || request.url().startsWith("data:"), `request to ${request.url()}`));

  // Nobody gets in without a login; the printed address lets one browser in, once.
  await page.goto(`${origin}/`);
  await page.waitForSelector("#token");
  await page.screenshot({ path: join(shots, "login-light-1280.png") });
  await page.goto(started.ui);
  await settled(page, "overview");
  check((await page.textContent("main")).includes("Can I lose"), "the overview answers what can be lost");
  check(!(await page.url()).includes("login="), "the login is gone from the address");

  // Make a datastore, by keyboard.
  await page.keyboard.press("g");
  await page.keyboard.press("d");
  await settled(page, "datastores");
  await page.getByRole("button", { name: "New datastore" }).focus();
  await page.keyboard.press("Enter");
  await page.keyboard.type("web-made");
  await page.keyboard.press("Enter");
  await page.waitForSelector("dialog .same");
  await page.screenshot({ path: join(shots, "dialog-light-1280.png") });
  await page.getByRole("button", { name: "Make it" }).focus();
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("main table") && document.querySelector("main table").textContent.includes("web-made"));
  check(vmhold("datastore", "list").some((one) => one.name === "web-made"), "the CLI sees the datastore");
  await page.getByRole("button", { name: "How to mount web-made" }).click();
  await page.waitForSelector("dialog pre");
  check((await page.textContent("dialog pre")).includes("/web-made"), "the mount command names the export");
  await page.keyboard.press("Escape");

  // Lose a drive, and see it without a reload.
  await page.goto(`${origin}/#/pool`);
  await settled(page, "pool");
  vmhold("quickstart", "break", "drive", "3");
  await page.waitForSelector(".slot.FAILED, .slot.MISSING, .slot.REBUILDING");
  await page.goto(`${origin}/#/activity`);
  await page.waitForFunction(() => document.querySelector("main").textContent.includes("VH1021"));
  await page.goto(`${origin}/#/overview`);
  await page.waitForFunction(() => document.querySelector("main .card.bad, main .card.warn"));

  const state = await context.storageState();
  for (const scheme of ["light", "dark"]) for (const width of [1280, 320]) await look(browser, state, scheme, width);

  // Delete the datastore: its name has to be typed.
  await page.goto(`${origin}/#/datastores`);
  await settled(page, "datastores");
  await page.getByRole("button", { name: "Delete web-made" }).click();
  await page.waitForSelector("#confirm-name");
  check(await page.getByRole("button", { name: "Delete", exact: true }).isDisabled(), "deleting waits for the name");
  await page.locator("#confirm-name").focus();
  await page.keyboard.type("web-made");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => !document.querySelector("dialog") && !document.querySelector("main table").textContent.includes("web-made"));

  // A store that is gone is STALE within seconds, and comes back without a reload.
  vmhold("quickstart", "stop");
  await page.waitForSelector(".live.stale", { timeout: 15000 });
  await page.screenshot({ path: join(shots, "stale-light-1280.png") });
  await context.close();
} catch (error) {
  failures.push(error.stack);
} finally {
  await browser.close();
  try { vmhold("quickstart", "destroy"); } catch (error) { failures.push(String(error)); }
  rmSync(folder, { recursive: true, force: true });
}
for (const failure of failures) console.error(`FAILED ${failure}`);
console.log(`${failures.length ? "walk failed" : "walk passed"}; screenshots in ${shots}`);
process.exit(failures.length ? 1 : 0);
