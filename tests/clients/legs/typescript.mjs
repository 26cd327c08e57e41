// An official TypeScript client, once through every leg of the protocol. Arguments: folder of the parts, package, mode,
// URL, token; the calls on standard input. Prints what came of each leg.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import path from "node:path";

const [folder, name, mode, url, token] = process.argv.slice(2);
const parts = createRequire(path.join(folder, "package.json"));
const load = (specifier) => import(pathToFileURL(parts.resolve(specifier)));
const pick = (module, name) => module[name] ?? module.default?.[name];

const WAIT = { timeout: 240000 };
const old = name === "@modelcontextprotocol/sdk";
const main = await load(old ? `${name}/client/index.js` : name);
const Client = pick(main, "Client");
const Transport = pick(old ? await load(`${name}/client/streamableHttp.js`) : main, "StreamableHTTPClientTransport");
const types = old ? await load(`${name}/types.js`) : {};
const of = (schema, method) => (old ? pick(types, schema) : method);

const calls = JSON.parse(readFileSync(0, "utf8"));
const transport = new Transport(new URL(url), { requestInit: { headers: { Authorization: `Bearer ${token}` } } });
const negotiation = mode === "legacy" ? mode : { pin: mode };
let told;
const news = new Promise((resolve) => (told = resolve));
const client = new Client(
  { name: "typescript", version: "1" },
  {
    capabilities: { elicitation: { form: {} } },
    versionNegotiation: { mode: negotiation },
    listChanged: { tools: { autoRefresh: false, onChanged: told } },
  },
);
let asked = 0;
client.setRequestHandler(of("ElicitRequestSchema", "elicitation/create"), async () => {
  asked += 1;
  return { action: "accept", content: { confirmation: "Yes" } };
});

async function call(one, options = {}) {
  const result = await client.callTool(one, ...(old ? [undefined] : []), { ...WAIT, ...options });
  return result.isError ? "refused" : "answered";
}

const legs = {
  call: () => call(calls.call),
  refusal: () => call(calls.refusal),
  stream: async () => {
    let reports = 0;
    const said = await call(calls.stream, { onprogress: () => (reports += 1) });
    return `${said}, ${reports} reports`;
  },
  resume: () => call(calls.resume, { onprogress: () => {} }),
  cancel: async () => {
    const wanted = new AbortController();
    const held = call(calls.cancel, { signal: wanted.signal });
    setTimeout(() => wanted.abort("no longer wanted"), calls.cancel_after_s * 1000);
    await held.catch(() => {});
    return "sent";
  },
  news: async () => {
    await call(calls.news);
    await news;
    return "told";
  },
  ping: async () => {
    await client.ping();
    return "answered";
  },
  level: async () => {
    await client.setLoggingLevel("warning");
    return "set";
  },
  resources: async () => {
    await call(calls.export);
    const [{ uri }] = (await client.listResources()).resources;
    const read = async () => (await client.readResource({ uri })).contents[0].text;
    let text = await read();
    while (text.includes("still being generated")) text = await read();
    return text.includes("EU") ? "listed, read" : "another content";
  },
  confirmation: async () => `${await call(calls.confirmation)}, asked ${asked} times`,
};

if (mode !== "legacy") delete legs.resume; // this revision has none

const late = () =>
  new Promise((_, reject) => {
    setTimeout(() => reject(new Error("nothing came")), 60000).unref();
  });

await client.connect(transport);
const found = { open: transport.protocolVersion ?? "" };
found.tools = (await client.listTools()).tools.some((tool) => tool.name === "find") ? "listed" : "none";
for (const [leg, work] of Object.entries(legs)) {
  try {
    found[leg] = await Promise.race([work(), late()]);
  } catch (error) {
    found[leg] = `${error.name} ${error.code ?? ""}: ${error.message}`.slice(0, 200);
  }
}
await transport.terminateSession?.().catch(() => {});
await client.close();
console.log(JSON.stringify(found));
process.exit(0);
