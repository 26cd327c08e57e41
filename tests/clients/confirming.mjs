// An official TypeScript client whose user answers what the server asks. Arguments: folder of the parts, package, URL,
// token; calls and answers on standard input. Prints what was asked and what came of it.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import path from "node:path";

const [folder, name, url, token] = process.argv.slice(2);
const parts = createRequire(path.join(folder, "package.json"));
const load = (specifier) => import(pathToFileURL(parts.resolve(specifier)));
const pick = (module, name) => module[name] ?? module.default?.[name];

const old = name === "@modelcontextprotocol/sdk";
const main = await load(old ? `${name}/client/index.js` : name);
const Client = pick(main, "Client");
const Transport = pick(old ? await load(`${name}/client/streamableHttp.js`) : main, "StreamableHTTPClientTransport");

const steps = JSON.parse(readFileSync(0, "utf8"));
const transport = new Transport(new URL(url), { requestInit: { headers: { Authorization: `Bearer ${token}` } } });
const client = new Client({ name: "typescript", version: "1" }, { capabilities: { elicitation: { form: {} } } });
const asked = [];
const answers = [];
const request = old ? pick(await load(`${name}/types.js`), "ElicitRequestSchema") : "elicitation/create";
client.setRequestHandler(request, async (message) => {
  asked.push(message.params.message);
  return answers.shift();
});

await client.connect(transport);
const done = [];
for (const [call, given] of steps) {
  answers.splice(0, answers.length, given);
  const result = await client.callTool(call, undefined, { timeout: 300000 });
  done.push([result.isError ?? false, result.content[0].text]);
}
await client.close();
console.log(JSON.stringify([asked, done]));
process.exit(0);
