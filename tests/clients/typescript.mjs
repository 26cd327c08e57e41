// One session of an official TypeScript client over every refusal. Arguments: folder of the parts, package, mode, URL,
// token.
// Reads the steps from standard input, prints what came of each as JSON.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import path from "node:path";

const [folder, name, mode, url, token] = process.argv.slice(2);
const parts = createRequire(path.join(folder, "package.json"));
const load = (specifier) => import(pathToFileURL(parts.resolve(specifier)));
const pick = (module, name) => module[name] ?? module.default[name];

let Client, Transport;
if (name === "@modelcontextprotocol/sdk") {
  Client = pick(await load(`${name}/client/index.js`), "Client");
  Transport = pick(await load(`${name}/client/streamableHttp.js`), "StreamableHTTPClientTransport");
} else {
  const module = await load(name);
  Client = pick(module, "Client");
  Transport = pick(module, "StreamableHTTPClientTransport");
}

const steps = JSON.parse(readFileSync(0, "utf8"));
const transport = new Transport(new URL(url), { requestInit: { headers: { Authorization: `Bearer ${token}` } } });
const negotiation = ["legacy", "auto"].includes(mode) ? mode : { pin: mode };
const client = new Client(
  { name: "typescript", version: "" },
  { capabilities: { roots: { listChanged: true } }, versionNegotiation: { mode: negotiation } },
);

function nested(levels) {
  let value = 1;
  for (let level = 0; level < levels; level++) value = [value];
  return value;
}

async function outcome(step) {
  await new Promise((resolve) => setTimeout(resolve, 1000 * (step.after_s ?? 0)));
  if (step.levels) step.arguments = { ...step.arguments, filter: { a: nested(step.levels) } };
  try {
    const result = await client.callTool({ name: step.name, arguments: step.arguments }, undefined, { timeout: 300000 });
    return result.isError ? "refused" : "answered";
  } catch (error) {
    return `raised ${error.name} ${error.code ?? ""}: ${error.message}`.slice(0, 200);
  }
}

await client.connect(transport);
const done = [transport.protocolVersion ?? "", (await client.listTools()).tools.map((tool) => tool.name).sort()];
for (const step of steps) done.push(await outcome(step));
if (mode === "legacy") {
  await client.sendRootsListChanged();
  await client.notification({ method: "notifications/progress", params: { progressToken: "nobody-asked", progress: 1 } });
}
done.push(await outcome(steps[0]));
await client.close();
console.log(JSON.stringify(done));
process.exit(0);
