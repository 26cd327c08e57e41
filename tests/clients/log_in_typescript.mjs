// An official TypeScript client that gets its tokens itself, then calls tools. Arguments: folder of the parts, package.
// Standard input: `url`, `calls`, `callback`, and `browser`, a command that is given a link, logs in there and prints
// where it was sent; `client_id` for a registered client; `bound` for tokens that are bound to a key (DPoP); `forgets`
// for a client that keeps no refresh token; `goes_on` where an error of a call is an outcome too. Prints what came of the
// calls, what it asked for and the kind of token it has, as JSON.
import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import path from "node:path";
import { promisify } from "node:util";

const [folder, name] = process.argv.slice(2);
const told = JSON.parse(readFileSync(0, "utf8"));
const parts = createRequire(path.join(folder, "package.json"));
const load = async (specifier) => {
  const module = await import(pathToFileURL(parts.resolve(specifier)));
  return { ...module.default, ...module };
};

const older = name === "@modelcontextprotocol/sdk";
const { Client } = await load(older ? `${name}/client/index.js` : name);
const { StreamableHTTPClientTransport } = await load(older ? `${name}/client/streamableHttp.js` : name);
const { DpopSession } = older ? {} : await load(name);

const asked = [];
const kept = { client: told.client_id && { client_id: told.client_id, issuer: told.issuer } };
const provider = {
  redirectUrl: told.callback,
  clientMetadata: {
    client_name: "A TypeScript client",
    redirect_uris: [told.callback],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
    dpop_bound_access_tokens: told.bound || undefined,
  },
  state: () => "the-state-of-this-client",
  clientInformation: () => kept.client,
  saveClientInformation: (client) => void (kept.client = client),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => void (kept.tokens = told.forgets ? { ...tokens, refresh_token: undefined } : tokens),
  redirectToAuthorization: (link) => void asked.push(String(link)),
  saveCodeVerifier: (verifier) => void (kept.verifier = verifier),
  codeVerifier: () => kept.verifier,
  saveDiscoveryState: (state) => void (kept.discovery = state),
  discoveryState: () => kept.discovery,
};
if (told.bound) {
  const session = DpopSession.create();
  provider.dpop = () => session;
}

let client, transport;
async function connect() {
  client = new Client({ name: "typescript", version: "1" });
  transport = new StreamableHTTPClientTransport(new URL(told.url), { authProvider: provider });
  await client.connect(transport);
}

// The client throws where a person is needed, and goes on when it is told the answer.
async function withPerson(work) {
  const before = asked.length;
  try {
    return await work();
  } catch (error) {
    if (asked.length === before) throw error;
    const [program, ...words] = told.browser;
    // Not execFileSync: a loop that stands still does not see that the server closes an idle connection, and uses it.
    const { stdout } = await promisify(execFile)(program, [...words, asked.at(-1)], { encoding: "utf8" });
    const back = new URL(stdout);
    if (back.searchParams.get("state") !== provider.state()) throw new Error("the answer is to another question");
    await transport.finishAuth(older ? back.searchParams.get("code") : back.searchParams);
    return undefined;
  }
}

if ((await withPerson(connect)) === undefined) await connect();
const outcomes = [];
for (const call of told.calls) {
  try {
    outcomes.push((await withPerson(() => client.callTool(call))) ?? (await client.callTool(call)));
  } catch (error) {
    if (!told.goes_on) throw error;
    outcomes.push({ raised: error.message });
  }
}
await client.close();
console.log(
  JSON.stringify({
    outcomes,
    asked: asked.map((link) => Object.fromEntries(new URL(link).searchParams)),
    token_type: kept.tokens.token_type,
    scope: kept.tokens.scope,
    client_id: kept.client.client_id,
  }),
);
process.exit(0);
