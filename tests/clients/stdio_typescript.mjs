// One session of an official TypeScript client over standard input and output. Arguments: folder of the parts, package,
// the command to launch. Reads environment and steps from standard input, prints what came of each as JSON.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import path from "node:path";

const [folder, name, command, ...args] = process.argv.slice(2);
const parts = createRequire(path.join(folder, "package.json"));
const load = (specifier) => import(pathToFileURL(parts.resolve(specifier)));
const pick = (module, name) => module[name] ?? module.default[name];

const old = name === "@modelcontextprotocol/sdk";
const Client = pick(await load(old ? `${name}/client/index.js` : name), "Client");
const Transport = pick(await load(old ? `${name}/client/stdio.js` : `${name}/stdio`), "StdioClientTransport");

const told = JSON.parse(readFileSync(0, "utf8"));
const transport = new Transport({ command, args, env: told.environment, cwd: told.cwd, stderr: "inherit" });
const client = new Client({ name: "typescript", version: "" });

async function outcome(step) {
  try {
    const result = await client.callTool({ name: step.name, arguments: step.arguments });
    return result.isError ? "refused" : "answered";
  } catch (error) {
    return `raised ${error.name} ${error.code ?? ""}: ${error.message}`.slice(0, 200);
  }
}

await client.connect(transport);
const done = [client.getServerVersion()?.name, (await client.listTools()).tools.map((tool) => tool.name).sort()];
for (const step of told.steps) done.push(await outcome(step));
await client.close();
console.log(JSON.stringify(done));
process.exit(0);
