// A person with a browser: opens a client's link, logs in, allows what is asked for, and prints where the browser was
// sent. Arguments: folder of the parts, Chromium, user, password, link.
import { createRequire } from "node:module";
import path from "node:path";

const [folder, executablePath, user, password, link] = process.argv.slice(2);
const { chromium } = createRequire(path.join(folder, "package.json"))("playwright-core");

const callback = new URL(link).searchParams.get("redirect_uri");
// As root, which tests in a container are, Chromium has no sandbox to offer.
const browser = await chromium.launch({ executablePath, args: process.getuid() === 0 ? ["--no-sandbox"] : [] });
const page = await browser.newPage();
page.setDefaultTimeout(45_000);
const returned = new Promise((resolve) => {
  void page.route(
    (url) => String(url).startsWith(callback),
    (route) => {
      resolve(route.request().url());
      return route.fulfill({ body: "You can close this page." });
    },
  );
});
await page.goto(link);
if (new URL(page.url()).pathname.startsWith("/interaction/")) {
  await page.getByLabel("User").fill(user);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("button", { name: "Allow", exact: true }).click();
}
process.stdout.write(await returned);
await browser.close();
