// A walk through the web UI in headless Chromium, as a person would do it: log in with the
// printed address, look at every page in light and dark, wide and at 320 px, make a
// datastore, lose a drive and see it, delete the datastore by typing its name; find a VM,
// snapshot it, roll it back by typing its name, clone, schedule, rename it, assign a file; by
// keyboard where it says so. Fails on: a script error, anything the policy had to stop, a
// request to elsewhere, a serious accessibility finding, text that does not fit.
//
//   npm install --no-save playwright-core axe-core      (in any folder; name it in NODE_PATH)
//   node tests/ui/walk.mjs target/debug/vmhold [folder for screenshots]
//
//   UI=crates/control/ui   shows these files in place of those in the program

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
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

const PAGES = ["overview", "vms", "vms/demo/100", "datastores", "pool", "activity", "settings"];
const ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

async function settled(page, name) {
  await page.waitForFunction((wanted) => location.hash.startsWith(`#/${wanted}`) && document.querySelector("main h1") && document.querySelector("main .card"), name);
}

// Files as four hypervisors lay them out; the demo's folder has what the VMs' disks hold.
const FILES = [
  "images/100/vm-100-disk-0.raw", "images/100/vm-100-disk-1.raw", "snippets/100-user.yaml", "images/101/vm-101-disk-0.qcow2",
  "erp/erp.vmx", "erp/erp.vmdk", "erp/erp-flat.vmdk", "erp/erp.nvram", "erp/vmware.log", "warp.qcow2", "warp_VARS.fd",
  "1f9d6c2e-94a1-4a5e-8c57-0b9d5b0e7a11.vhd", "notes.txt",
];

const at = (path) => {
  const { host, port, mount_port, export: name } = started.nfs;
  return `nfs://${host}${name}/${path}?nfsport=${port}&mountport=${mount_port}`;
};

function put(path, text) {
  const local = join(folder, "file");
  writeFileSync(local, text);
  execFileSync(program, ["nfs", "put", local, at(path)]);
}

function content(path) {
  const local = join(folder, "got");
  execFileSync(program, ["nfs", "get", at(path), local]);
  return readFileSync(local, "utf8");
}

function makeFiles() {
  const folders = new Set(FILES.flatMap((path) => path.split("/").slice(0, -1).map((_, index, parts) => parts.slice(0, index + 1).join("/"))));
  for (const one of folders) execFileSync(program, ["nfs", "mkdir", at(one)]);
  FILES.forEach((path, index) => put(path, `before ${path} `.repeat(3000 * (index + 1))));
}

const vm = (name) => vmhold("vm", "list").find((one) => one.name === name);

// Fills in the open form, looks at the plan, and has it done.
async function change(page, fields, verb) {
  await page.waitForSelector("dialog form");
  for (const [id, value] of Object.entries(fields)) await page.locator(`dialog #${id}`).fill(value);
  await page.getByRole("button", { name: "Check" }).click();
  await carryOut(page, verb);
}

async function carryOut(page, verb) {
  await page.waitForSelector("dialog .same");
  await page.getByRole("dialog").getByRole("button", { name: verb, exact: true }).click();
}

const says = (page, text) => page.waitForFunction((text) => document.querySelector("main").textContent.includes(text), text);

const rows = (page, many) => page.waitForFunction((many) => document.querySelectorAll("#vms tbody tr").length === many, many, { timeout: 20000 });

async function vms(page) {
  // The demo's load makes a VM of its own; a store without any looks like this.
  await page.route("**/v1/vms", (route) => route.fulfill({ json: { data: [] } }));
  await page.goto(`${origin}/#/vms`);
  await settled(page, "vms");
  await says(page, "No VM has been found yet");
  check((await page.textContent("main .card")).includes("Mount a datastore"), "an empty list says what to do");
  await page.screenshot({ path: join(shots, "vms-empty-light-1280.png") });
  await accessible(page, "vms-empty");
  await page.unroute("**/v1/vms");
  await rows(page, 1);

  // They come by themselves; found, sorted and opened by keyboard.
  makeFiles();
  await rows(page, 6);
  const names = () => page.$$eval("#vms tbody th", (cells) => cells.map((cell) => cell.textContent));
  check((await names())[1] === "100" && (await names())[2] === "101", `numbers in their order: ${await names()}`);
  await page.getByRole("button", { name: "Size", exact: true }).focus();
  await page.keyboard.press("Enter");
  await page.keyboard.press("Enter");
  check(await page.getAttribute("#vms th[aria-sort]", "aria-sort") === "descending", "sorted downwards");
  const sizes = vmhold("vm", "list").map((one) => [one.files.reduce((all, file) => all + file.size_bytes, 0), one.name]).sort((a, b) => b[0] - a[0]);
  check((await names()).join() === sizes.map(([, name]) => name).join(), `the largest first: ${await names()}`);
  await page.getByRole("heading", { name: "VMs" }).focus();
  await page.keyboard.press("/");
  await page.keyboard.type("nothing is called so");
  await says(page, "No VM fits");
  await page.locator("#filter").fill("demo rp");
  await rows(page, 2);
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Home");
  const first = (await names())[0];
  check(await page.evaluate(() => document.activeElement.textContent) === first, "arrows go to the first row");
  await page.keyboard.press("ArrowDown");
  check(await page.evaluate(() => document.activeElement.textContent) === (await names())[1], "arrows go on");
  // A VM that comes meanwhile moves no row from under the focus.
  execFileSync(program, ["nfs", "mkdir", at("sharp")]);
  put("sharp/disk.raw", "x".repeat(1 << 20));
  await rows(page, 3);
  check((await names())[0] === first && (await names())[2] === "sharp", `rows stay while one has the focus: ${await names()}`);
  check(await page.evaluate(() => document.activeElement.tagName) === "A", "the focus stays in the table");
  await page.locator("#filter").fill("");
}

async function oneVm(page) {
  await page.goto(`${origin}/#/vms`);
  await page.getByRole("link", { name: "100", exact: true }).focus();
  await page.keyboard.press("Enter");
  await settled(page, "vms/demo/100");
  await says(page, "images/100/vm-100-disk-1.raw");
  check(await page.title() === "100 · VMs · vmhold", `title: ${await page.title()}`);
  check((await page.textContent("main")).includes("no snapshot has been taken"), "what is not there is said");

  // A snapshot, by keyboard; a second of that name is refused with code and what to do.
  await page.getByRole("button", { name: "Take a snapshot" }).focus();
  await page.keyboard.press("Enter");
  await page.waitForSelector("dialog #snapshot-name");
  await page.keyboard.press("Control+a");
  await page.keyboard.type("before the change");
  await page.keyboard.press("Enter");
  await page.waitForSelector("dialog .same");
  check((await page.textContent("dialog .same code")) === "vmhold vm snapshot create demo/100 'before the change'", "the same command");
  await page.getByRole("button", { name: "Take it" }).focus();
  await page.keyboard.press("Enter");
  await page.waitForSelector("#snapshot-before\\%20the\\%20change");
  check(vm("100").snapshots[0].name === "before the change", "the CLI sees the snapshot");
  await page.getByRole("button", { name: "Take a snapshot" }).click();
  await page.locator("dialog #snapshot-name").fill("before the change");
  await page.getByRole("button", { name: "Check" }).click();
  await page.waitForSelector("dialog .problem");
  const refusal = await page.textContent("dialog .problem");
  check(refusal.includes("VH3022") && refusal.includes("Do: "), `a refusal says its code and what to do: ${refusal}`);
  await page.keyboard.press("Escape");

  // Changed since, and back: its name has to be typed.
  put(FILES[0], "after");
  await page.getByRole("button", { name: "What changed since before the change" }).click();
  await page.waitForSelector("dialog .change");
  check((await page.textContent("dialog .change")).includes(FILES[0]), "the changed file is named");
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Roll back to before the change" }).click();
  await page.waitForSelector("#confirm-name");
  await page.screenshot({ path: join(shots, "rollback-light-1280.png") });
  await accessible(page, "rollback");
  check(await page.getByRole("dialog").getByRole("button", { name: "Roll back" }).isDisabled(), "a rollback waits for the name");
  check(content(FILES[0]) === "after", "nothing is done before it is confirmed");
  await page.locator("#confirm-name").fill("100");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("dialog h2") && document.querySelector("dialog h2").textContent === "100 is as in before the change");
  check(content(FILES[0]).startsWith("before "), "the content is there again");
  await page.getByRole("button", { name: "Close" }).click();

  // A schedule, a clone of now, another name.
  await page.getByRole("button", { name: "Set a schedule" }).click();
  await page.locator("#every-unit").selectOption("seconds");
  await change(page, { every: "10", keep: "2" }, "Set it");
  await says(page, "every 10 s, 2 kept");
  check(JSON.stringify(vm("100").schedule) === JSON.stringify({ every_seconds: 10, keep: 2 }), "the CLI sees the schedule");
  await page.waitForFunction(() => [...document.querySelectorAll("td[data-label=Kind]")].some((cell) => cell.textContent === "schedule"), null, { timeout: 40000 });
  await page.getByRole("button", { name: "Change the schedule" }).click();
  await page.locator("#schedule-off").check();
  await change(page, {}, "End it");
  await says(page, "by hand only");
  await page.getByRole("button", { name: "Clone", exact: true }).click();
  await change(page, { "clone-name": "200" }, "Clone it");
  await page.waitForFunction(() => location.hash === "#/vms/demo/200");
  await says(page, "images/200/vm-200-disk-0.raw");
  check(content("images/200/vm-200-disk-0.raw") === content(FILES[0]), "the clone has the same content");
  await page.getByRole("button", { name: "Rename" }).click();
  await change(page, { "vm-name": "test 100" }, "Rename it");
  await page.waitForFunction(() => location.hash === "#/vms/demo/test%20100");
  await says(page, "images/200/vm-200-disk-0.raw");

  // A file that is nobody's becomes one of it.
  await page.goto(`${origin}/#/vms`);
  await page.getByRole("button", { name: "Assign a file" }).click();
  await change(page, { "assign-path": "notes.txt", "assign-vm": "test 100" }, "Assign it");
  await page.waitForFunction(() => !document.querySelector("dialog"));
  check(vm("test 100").files.some((file) => file.path === "notes.txt"), "the file is assigned");

  // A VM that is gone has a page as long as it has snapshots, and none after.
  await page.goto(`${origin}/#/vms/demo/nowhere`);
  await page.waitForSelector("main .problem");
  check((await page.textContent("main .problem")).includes("VH3001"), "no such VM is said with its code");
  await page.goto(`${origin}/#/vms/demo/100`);
  await page.getByRole("button", { name: "Delete snapshot before the change" }).click();
  await page.locator("#confirm-name").fill("before the change");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => !document.querySelector("dialog") && !document.querySelector("#snapshot-before\\%20the\\%20change"));

  // As the pictures show them.
  vmhold("vm", "snapshot", "create", "100", "before the update");
  vmhold("vm", "schedule", "erp", "--every", "1h", "--keep", "24");
  vmhold("vm", "schedule", "warp", "--every", "15m", "--keep", "96");
}

async function accessible(page, name) {
  // Not as a script of the page: its policy would stop that.
  await page.evaluate(axe);
  const result = await page.evaluate(() => window.axe ? window.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"] }) : null);
  check(result, `${name}: the scan did not run`);
  for (const finding of result ? result.violations : []) {
    if (["serious", "critical"].includes(finding.impact)) {
      failures.push(`${name}: ${finding.id} (${finding.impact}): ${finding.nodes.slice(0, 3).map((node) => node.html).join(" | ")}`);
    }
  }
}

async function ownFiles(context) {
  if (!process.env.UI) return;
  await context.route("**/ui/**", (route) => route.fulfill({ path: join(process.env.UI, new URL(route.request().url()).pathname.slice("/ui/".length)) }));
}

const fits = (page) => page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);

async function look(browser, state, scheme, width) {
  const context = await browser.newContext({
    ignoreHTTPSErrors: true, colorScheme: scheme, viewport: { width, height: width < 500 ? 720 : 800 }, storageState: state, bypassCSP: true,
  });
  await ownFiles(context);
  const page = await context.newPage();
  for (const name of PAGES) {
    await page.goto(`${origin}/#/${name}`);
    await settled(page, name);
    await page.waitForFunction(() => document.querySelector("header .live") && !document.querySelector("header .paused"));
    if (name.startsWith("vms")) await page.waitForSelector("main table");
    const label = `${name.replaceAll("/", "-")}-${scheme}-${width}`;
    check(await fits(page), `${label}: the page is wider than the window`);
    await page.screenshot({ path: join(shots, `${label}.png`), fullPage: true });
    await accessible(page, label);
  }
  await context.close();
}

mkdirSync(shots, { recursive: true });
const started = vmhold("quickstart", "--profile", "single", "--background", "--memory", "--size", "96MiB", "--drives", "8", "--ports-from", "0");
const origin = started.api;
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ARGUMENTS });
try {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 800 }});
  await ownFiles(context);
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

  await vms(page);
  await oneVm(page);

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
  for (const page of browser.contexts().flatMap((context) => context.pages())) await page.screenshot({ path: join(shots, "failure.png"), fullPage: true }).catch(() => {});
} finally {
  await browser.close();
  try { vmhold("quickstart", "destroy"); } catch (error) { failures.push(String(error)); }
  rmSync(folder, { recursive: true, force: true });
}
for (const failure of failures) console.error(`FAILED ${failure}`);
console.log(`${failures.length ? "walk failed" : "walk passed"}; screenshots in ${shots}`);
process.exit(failures.length ? 1 : 0);
