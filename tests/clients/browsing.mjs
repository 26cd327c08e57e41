// A person with a browser of their own: opens a client's link, logs in, allows what is asked for, and goes on to wherever
// the browser is sent, which is the client's own listener; prints what that page says.
// Arguments: folder of the parts, Chromium, user, password, link.
import { createRequire } from "node:module";
import path from "node:path";

const [folder, executablePath, user, password, link] = process.argv.slice(2);
const { chromium } = createRequire(path.join(folder, "package.json"))("playwright-core");

// As root, which tests in a container are, Chromium has no sandbox to offer.
const browser = await chromium.launch({ executablePath, args: process.getuid() === 0 ? ["--no-sandbox"] : [] });
const page = await browser.newPage();
page.setDefaultTimeout(45_000);
await page.goto(link);
await page.getByLabel("User").fill(user);
await page.getByLabel("Password").fill(password);
await page.getByRole("button", { name: "Log in" }).click();
await page.getByRole("button", { name: "Allow", exact: true }).click();
await page.waitForURL((url) => url.pathname === "/callback");
process.stdout.write(await page.locator("body").innerText());
await browser.close();
