#!/usr/bin/env node
// The authorization server of the demo, the tests and Compose: `demo-authorization-server CONFIG.json`.
//
// Everything about it is in its configuration file (configuration.js says how it is read). SIGHUP reads the file again:
// keys, people, clients and resources change, while sessions and tokens that are out stay. It is made for one machine:
// it answers to loopback names only, and knows its people's passwords in clear.
import { randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { argv, exit, stderr, stdout } from "node:process";

import { ConfigurationError, read } from "./configuration.js";
import { Pages } from "./pages.js";
import { provide } from "./provider.js";
import { Stores } from "./stores.js";

const HEAD_MS = 10_000;

const stores = new Stores();
const secrets = [randomBytes(32).toString("base64url")];

/** What serves one reading of the configuration file. */
async function serving(file) {
  const configuration = await read(file);
  const provider = provide(configuration, stores, secrets);
  return { configuration, answer: provider.callback(), pages: new Pages(provider, configuration) };
}

let now;
try {
  if (argv.length !== 3) throw new ConfigurationError("usage: demo-authorization-server CONFIG.json");
  now = await serving(argv[2]);
} catch (error) {
  stderr.write(`demo-authorization-server: ${error.message}\n`);
  exit(error instanceof ConfigurationError ? 78 : 1);
}

const server = createServer({ headersTimeout: HEAD_MS, requestTimeout: HEAD_MS }, (request, response) => {
  response.on("finish", () => {
    stdout.write(`${request.method} ${request.url.split("?")[0]} ${response.statusCode}\n`);
  });
  // A page whose own name leads to this machine (DNS rebinding) must not act as a user who is logged in here.
  if (!now.configuration.hosts.has(request.headers.host)) {
    response.writeHead(421, { "Content-Type": "text/plain" }).end("This server has other names.\n");
  } else if (!now.pages.serve(request, response)) {
    now.answer(request, response);
  }
});

server.on("error", (error) => {
  stderr.write(`demo-authorization-server: ${error.message}\n`);
  exit(78);
});
const { host, port } = now.configuration.listen;
server.listen(port, host, () => stdout.write(`serving ${now.configuration.issuer}\n`));

process.on("SIGHUP", async () => {
  try {
    now = await serving(argv[2]);
    stdout.write("read the configuration again\n");
  } catch (error) {
    stderr.write(`demo-authorization-server: the configuration stays as it was: ${error.message}\n`);
  }
});
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, () => {
    server.close(() => exit(0));
    server.closeAllConnections();
  });
}
