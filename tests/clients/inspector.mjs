// A person with the MCP Inspector in a browser: connects, logs in where the Inspector leads, allows what is asked for,
// and calls tools; prints what the authorization server was asked for, and of each call what the page shows.
// Arguments: folder of the parts, Chromium. Standard input, JSON: {link, user, password, calls: [{name, arguments}]}.
import { createRequire } from "node:module";
import path from "node:path";
import { text } from "node:stream/consumers";

const [folder, executablePath] = process.argv.slice(2);
const { link, user, password, calls } = JSON.parse(await text(process.stdin));
const { chromium } = createRequire(path.join(folder, "package.json"))("playwright-core");

const asked = [];
const browser = await chromium.launch({
  executablePath,
  args: [
    // As root, which tests in a container are, Chromium has no sandbox to offer.
    ...(process.getuid() === 0 ? ["--no-sandbox"] : []),
    // The page has its letters from elsewhere; nothing but this machine is there.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
  ],
});
const page = await browser.newPage({ viewport: { width: 1400, height: 900 } });
page.setDefaultTimeout(45_000);
page.on("request", (request) => {
  const url = new URL(request.url());
  if (url.pathname === "/auth") asked.push(Object.fromEntries(url.searchParams));
});

/** Fill in the pages of the authorization server, of which the first may be left out. */
async function allow() {
  await page.waitForURL(/\/interaction\//);
  if (await page.getByLabel("User").isVisible()) {
    await page.getByLabel("User").fill(user);
    await page.getByLabel("Password").fill(password);
    await page.getByRole("button", { name: "Log in" }).click();
  }
  await page.getByRole("button", { name: "Allow", exact: true }).click();
}

/** Call a tool with arguments as JSON; where more has to be allowed, allow it and call again, as the page says. */
async function call({ name, arguments: given }) {
  await open("Tools");
  await page.getByRole("button").filter({ has: page.getByText(name, { exact: true }) }).first().click();
  await page.getByLabel("Edit as JSON").check({ force: true });
  await page.locator("textarea:not([readonly])").first().focus();
  await page.keyboard.press("Control+A");
  await page.keyboard.insertText(JSON.stringify(given));
  await page.getByRole("button", { name: "Execute Tool" }).click();
  const results = page.getByText("Results", { exact: true });
  const more = page.getByRole("button", { name: "Authorize", exact: true });
  await results.or(more).first().waitFor();
  if (!(await more.isVisible())) return [{ shown: await page.locator("body").innerText() }];
  const dialog = { asks: await page.getByRole("dialog").innerText() };
  await more.click();
  await allow();
  await page.getByText("Retry your action").waitFor();
  return [dialog, ...(await call({ name, arguments: given }))];
}

async function open(tab) {
  await page.getByText(tab, { exact: true }).first().click();
}

try {
  await page.goto(link);
  await page.getByRole("switch", { name: /^Connect/ }).check({ force: true });
  await allow();
  const outcomes = [];
  for (const one of calls) outcomes.push(await call(one));
  process.stdout.write(JSON.stringify({ asked, outcomes }));
} catch (error) {
  process.stderr.write(`${page.url()}\n${await page.locator("body").innerText()}\n${error}\n`);
  process.exitCode = 1;
}
await browser.close();
