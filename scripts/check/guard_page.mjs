// Use the page of `scotoma serve` in headless Chromium from the keyboard, as its readers do: wide and narrow, light and dark.
//
//     npm install --prefix build/browser puppeteer-core axe-core
//     scotoma serve served/ --policy policy/zoo                 (docs/quickstart_guard.md makes served/)
//     node scripts/check/guard_page.mjs http://127.0.0.1:8000/ FOLDER ["PROMPT" "PROMPT THAT IS REFUSED"]
//
// Writes screenshots of each, with a picture and with a refusal, and check.json; CHROMIUM names another browser than
// /usr/bin/chromium. Ends with 1 where the page says anything on the console, asks for anything elsewhere, is wider than its window,
// axe finds something serious or critical, or one of these is not so: the skip link leads to the prompt; Ctrl and Enter draws a
// picture with an alternative text; the button refuses with check and category, and takes the picture away; the live region says
// each of it, and the focus stays where it was.

import { createRequire } from "node:module";
import fs from "node:fs";
import path from "node:path";

const require = createRequire(path.resolve("build/browser/package.json"));
const puppeteer = require("puppeteer-core");
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const [address, folder, prompt = "a penguin, twemoji style", forbidden = "a kitchen knife"] = process.argv.slice(2);
if (!address || !folder) {
  console.error('usage: node scripts/check/guard_page.mjs URL FOLDER ["PROMPT" "PROMPT THAT IS REFUSED"]');
  process.exit(2);
}
fs.mkdirSync(folder, { recursive: true });
const origin = new URL(address).origin;
const views = [
  { name: "desktop-light", width: 1280, height: 900, scheme: "light" },
  { name: "desktop-dark", width: 1280, height: 900, scheme: "dark" },
  { name: "phone-light", width: 390, height: 844, scheme: "light" },
  { name: "phone-dark", width: 390, height: 844, scheme: "dark" },
];
const found = { console: [], requests: [], wide: [], axe: {}, wrong: [], said: {} };

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--font-render-hinting=none"],
});
for (const view of views) {
  const page = await browser.newPage();
  const check = (fine, what) => { if (!fine) found.wrong.push(`${view.name}: ${what}`); };
  const focus = () => page.evaluate(() => document.activeElement.id);
  page.on("console", (m) => {
    // Chromium itself writes down each answer that is an error, and a refusal is one.
    if (!/status of 400/.test(m.text())) found.console.push(`${view.name}: ${m.text()}`);
  });
  page.on("pageerror", (e) => found.console.push(`${view.name}: ${e}`));
  page.on("request", (r) => {
    if (!r.url().startsWith("data:") && new URL(r.url()).origin !== origin) found.requests.push(r.url());
  });
  const look = async (name) => {
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    if (width > view.width) found.wide.push(`${view.name} ${name}: ${width} px`);
    const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    found.axe[`${view.name} ${name}`] = violations.map(
      (v) => `${v.impact} ${v.id}: ${v.nodes.length} x ${v.help}; ${v.nodes[0].target}`);
    await page.screenshot({ path: path.join(folder, `${view.name}-${name}.png`), fullPage: true });
  };
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: view.scheme }]);
  await page.setViewport({ width: view.width, height: view.height });
  await page.goto(address, { waitUntil: "networkidle0", timeout: 60000 });
  await page.evaluate(axe);
  await page.evaluate(() => {
    const live = document.querySelector("[aria-live=polite]");
    window.said = [];
    new MutationObserver(() => window.said.push(live.textContent)).observe(live, { childList: true });
  });

  await page.keyboard.press("Tab");
  check(await page.evaluate(() => document.activeElement.className) === "skip", "the first Tab is not the skip link");
  await page.keyboard.press("Enter");
  check(await focus() === "prompt", "the skip link does not lead to the prompt");
  await page.keyboard.type(prompt);
  await page.keyboard.down("Control");
  await page.keyboard.press("Enter");
  await page.keyboard.up("Control");
  await page.waitForFunction(() => /^(Drawn|Shown blurred)/.test(window.said.at(-1) ?? ""), { timeout: 120000 });
  const shown = await page.$eval("#picture", (i) => ({ alt: i.alt, width: i.naturalWidth, seen: i.offsetWidth > 0 }));
  check(shown.seen && shown.width > 0 && shown.alt.includes(prompt), `no picture: ${JSON.stringify(shown)}`);
  check(await focus() === "prompt", `the focus went to ${await focus()} when a picture came`);
  await look("picture");

  await page.keyboard.down("Control");
  await page.keyboard.press("a");
  await page.keyboard.up("Control");
  await page.keyboard.type(forbidden);
  await page.keyboard.press("Tab");
  check(await focus() === "seed", "Tab does not lead from the prompt to the seed");
  await page.keyboard.press("Tab");
  check(await focus() === "go", "Tab does not lead from the seed to the button");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => /^Refused/.test(window.said.at(-1) ?? ""), { timeout: 120000 });
  check(/Check: \w+, category: \w+/.test((await page.evaluate(() => window.said.at(-1)))), "the refusal has no reason");
  check(await page.$eval("#shown", (f) => f.hidden), "the picture before is still there");
  check(await focus() === "go", `the focus went to ${await focus()} when it was refused`);
  await look("refusal");

  found.said[view.name] = await page.evaluate(() => window.said);
  check(found.said[view.name].filter((t) => t.startsWith("Drawing")).length === 2, "it does not say that it draws");
  await page.close();
}
await browser.close();

fs.writeFileSync(path.join(folder, "check.json"), JSON.stringify(found, null, 1) + "\n");
console.log(JSON.stringify(found, null, 1));
const serious = Object.values(found.axe).flat().filter((v) => /^(serious|critical) /.test(v));
process.exit([...found.console, ...found.requests, ...found.wide, ...found.wrong, ...serious].length ? 1 : 0);
