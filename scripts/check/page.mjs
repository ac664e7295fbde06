// Look at a report in headless Chromium, as its readers do: wide and narrow, light and dark, on paper.
//
//     npm install --prefix build/browser puppeteer-core axe-core
//     node scripts/check/page.mjs REPORT.html FOLDER            (CHROMIUM names another browser than /usr/bin/chromium)
//
// Writes a screenshot of each, a PDF, and check.json. Ends with 1 where the page says anything on the console, asks for anything
// outside itself, is wider than its window, axe finds something serious or critical, or a blurred picture cannot be shown and
// blurred again from the keyboard.

import { createRequire } from "node:module";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(path.resolve("build/browser/package.json"));
const puppeteer = require("puppeteer-core");
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const [report, folder] = process.argv.slice(2);
if (!report || !folder) {
  console.error("usage: node scripts/check/page.mjs REPORT.html FOLDER");
  process.exit(2);
}
fs.mkdirSync(folder, { recursive: true });
const address = pathToFileURL(path.resolve(report)).href;
const views = [
  { name: "desktop-light", width: 1280, height: 900, scheme: "light" },
  { name: "desktop-dark", width: 1280, height: 900, scheme: "dark" },
  { name: "phone-light", width: 390, height: 844, scheme: "light" },
  { name: "phone-dark", width: 390, height: 844, scheme: "dark" },
];
const found = { bytes: fs.statSync(report).size, console: [], requests: [], wide: [], axe: {}, keyboard: [], pages: 0 };

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--font-render-hinting=none"],
});
for (const view of views) {
  const page = await browser.newPage();
  page.on("console", (m) => found.console.push(`${view.name}: ${m.text()}`));
  page.on("pageerror", (e) => found.console.push(`${view.name}: ${e}`));
  page.on("request", (r) => {
    if (!r.url().startsWith("data:") && r.url() !== address) found.requests.push(r.url());
  });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: view.scheme }]);
  await page.setViewport({ width: view.width, height: view.height });
  await page.goto(address, { waitUntil: "load", timeout: 120000 });
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  if (width > view.width) found.wide.push(`${view.name}: ${width} px`);
  // Folded parts count: axe sees them open.
  await page.evaluate(() => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  found.axe[view.name] = violations.map((v) => `${v.impact} ${v.id}: ${v.nodes.length} x ${v.help}; ${v.nodes[0].target}`);
  await page.evaluate(() => document.querySelectorAll("details").forEach((d) => { d.open = false; }));
  const veil = await page.$(".veil");
  if (veil) {
    const pressed = () => veil.evaluate((v) => v.getAttribute("aria-pressed"));
    const states = [await pressed()];
    await veil.focus();
    for (const key of ["Enter", "Escape"]) {
      await page.keyboard.press(key);
      states.push(await pressed());
    }
    if (states.join() !== "false,true,false") found.keyboard.push(`${view.name}: ${states}`);
  }
  await page.screenshot({ path: path.join(folder, `${view.name}.png`), fullPage: true });
  if (view.name === "desktop-light") {
    const pdf = await page.pdf({ path: path.join(folder, "paper.pdf"), format: "A4", timeout: 120000 });
    found.pages = (Buffer.from(pdf).toString("latin1").match(/\/Type\s*\/Page[^s]/g) || []).length;
  }
  await page.close();
}
await browser.close();

fs.writeFileSync(path.join(folder, "check.json"), JSON.stringify(found, null, 1) + "\n");
console.log(JSON.stringify(found, null, 1));
const serious = Object.values(found.axe).flat().filter((v) => /^(serious|critical) /.test(v));
const wrong = [...found.console, ...found.requests, ...found.wide, ...found.keyboard, ...serious];
process.exit(wrong.length || !found.pages ? 1 : 0);
