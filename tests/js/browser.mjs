// Chromium for the door tests, driven line by line: a JSON command on standard input, one JSON answer on standard output.
//
//   {"id": 1, "do": "open", "page": "ada", "url": "http://…/", "width": 390, "height": 844}
//   {"id": 2, "do": "fill", "page": "ada", "at": "name", "text": "Ada"}       a control, by its data-test
//   {"id": 3, "do": "until", "page": "ada", "script": "(arg) => …", "arg": 1} until the script gives something true
//
// Answers: {"id", "ok": true, "value"} or {"id", "ok": false, "error"}. It ends when its standard input does.
// Run as: node browser.mjs CHROMIUM PROFILE_FOLDER
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [executablePath, profile] = process.argv.slice(2);
const WITHIN_MS = 30_000;
const FLAGS = [
  "--headless=new",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-dev-shm-usage",
  "--hide-scrollbars",
  "--mute-audio",
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
  "--autoplay-policy=no-user-gesture-required",
  // Two pages of one machine meet on 127.0.0.1: no mDNS names, and loopback counts as a network.
  "--disable-features=WebRtcHideLocalIpsWithMdns",
  "--allow-loopback-in-peer-connection",
];

const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: false, // FLAGS say how
  args: FLAGS,
  permissions: ["camera", "microphone"],
  colorScheme: "light",
  viewport: { width: 390, height: 844 },
});
context.setDefaultTimeout(WITHIN_MS);
// What a page's connections receive can only be asked from the connections: they are kept where a test finds them.
await context.addInitScript(() => {
  window.madeConnections = [];
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(config, ...more) {
      super(window.relayOnly ? { ...config, iceTransportPolicy: "relay" } : config, ...more);
      window.madeConnections.push(this);
    }
  };
});
const pages = new Map();
const said = new Map(); // what each page wrote to its console: the first thing to read when a test fails
const heard = new WeakMap(); // the same by the page itself, from its first moment
const popups = []; // tabs that pages have opened, and nobody has given a name yet
context.on("page", (page) => {
  const lines = [];
  heard.set(page, lines);
  popups.push(page);
  page.on("console", (message) => lines.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => lines.push(`uncaught: ${error.stack ?? error}`));
});

const at = (ask) => pages.get(ask.page).getByTestId(ask.at);

const verbs = {
  async open({ page: name, url, width = 390, height = 844 }) {
    const page = await context.newPage();
    popups.splice(popups.indexOf(page), 1);
    pages.set(name, page);
    said.set(name, heard.get(page));
    await page.setViewportSize({ width, height });
    await page.goto(url);
  },
  // The next tab that a page opens, or has opened, is called so.
  async popup({ page: name }) {
    const page = popups.shift() ?? (await context.waitForEvent("page"));
    if (popups.includes(page)) popups.splice(popups.indexOf(page), 1);
    await page.setViewportSize({ width: 390, height: 760 });
    pages.set(name, page);
    said.set(name, heard.get(page));
  },
  gone: async ({ page }) => pages.get(page).isClosed() || pages.get(page).waitForEvent("close").then(() => true),
  select: (ask) => at(ask).selectOption(ask.text).then(() => null),
  fill: (ask) => at(ask).fill(ask.text),
  click: (ask) => at(ask).click(),
  text: (ask) => at(ask).innerText(),
  scheme: ({ page, scheme }) => pages.get(page).emulateMedia({ colorScheme: scheme }),
  reload: ({ page }) => pages.get(page).reload().then(() => null),
  content: ({ page, html }) => pages.get(page).setContent(html),
  forget: () => context.clearCookies(),
  offline: ({ on }) => context.setOffline(on),
  run: ({ page, script, arg }) => pages.get(page).evaluate(`(${script})(${JSON.stringify(arg ?? null)})`),
  // Not waitForFunction: it evaluates text in the page, which the page's own Content-Security-Policy forbids.
  async until({ page, script, arg, withinMs = WITHIN_MS }) {
    const expression = `(${script})(${JSON.stringify(arg ?? null)})`;
    const end = performance.now() + withinMs;
    let last = "it stayed false";
    while (performance.now() < end) {
      try {
        const found = await pages.get(page).evaluate(expression);
        if (found) return found;
      } catch (error) {
        last = String(error.message); // reloading, perhaps
      }
      await new Promise((done) => setTimeout(done, 50));
    }
    throw new Error(`not within ${withinMs} ms (${last}): ${expression}`);
  },
  console: ({ page }) => said.get(page) ?? [],
  picture: ({ page, path, quality, whole = false }) =>
    pages
      .get(page)
      .screenshot({ path, fullPage: whole, ...(quality ? { type: "jpeg", quality } : {}) })
      .then(() => null),
  size: ({ page, width, height }) => pages.get(page).setViewportSize({ width, height }),
  async close({ page }) {
    await pages.get(page)?.close();
    pages.delete(page);
  },
};

const answer = (body) => process.stdout.write(`${JSON.stringify(body)}\n`);

async function obey(line) {
  const ask = JSON.parse(line);
  try {
    answer({ id: ask.id, ok: true, value: (await verbs[ask.do](ask)) ?? null });
  } catch (error) {
    answer({ id: ask.id, ok: false, error: String(error?.message ?? error) });
  }
}

// Before the first page of ours: getByTestId looks for CONTRACT's attribute.
const { selectors } = await import("playwright-core");
selectors.setTestIdAttribute("data-test");
const lines = createInterface({ input: process.stdin });
lines.on("line", obey);
lines.on("close", async () => {
  await context.close().catch(() => {});
  process.exit(0);
});
answer({ id: 0, ok: true, value: "ready" });
