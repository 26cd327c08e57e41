// The configuration file: one JSON object, read strictly, because a misspelt name would silently be a looser server.
//
//   issuer         the address that clients dial, http on a loopback name, such as http://127.0.0.1:9000
//   listen         where to listen, if that is elsewhere: inside a container, whose port is published on loopback
//   keys           [{kid, pem}], private keys; the first signs, all are published. None: one is made at the start
//   resources      {resource: {scopes: […], tokens: "jwt"|"opaque", ttl_s}}: what tokens are for (RFC 8707)
//   people         {name: {password, claims: {…}}}: the claims are added to their access tokens
//   clients        {id: {metadata: {…}, claims: {…}, introspects, exchanges: {from, to, scopes}}}; the metadata is that
//                  of RFC 7591; `claims` are for tokens of its own; `exchanges` is read by token_exchange.js
//   registration   whether clients may register themselves (RFC 7591)
//   origins        [origin]: of pages that are clients; origins.js says what they may. A page of another may nothing
import { createPrivateKey, generateKeyPairSync } from "node:crypto";
import { readFile } from "node:fs/promises";

export class ConfigurationError extends Error {}

const LOOPBACK = new Set(["127.0.0.1", "localhost", "[::1]"]);
const ALGORITHMS = { "EC P-256": "ES256", RSA: "RS256", "OKP Ed25519": "EdDSA" };

/** Read a configuration file; throws ConfigurationError. */
export async function read(file) {
  let given;
  try {
    given = JSON.parse(await readFile(file, "utf8"));
  } catch (error) {
    throw new ConfigurationError(`${file}: ${error.message}`);
  }
  const { issuer, listen = "", keys = [], resources, people = {}, clients = {}, registration = false, origins = [] } = members(
    given, "the configuration", ["issuer", "listen", "keys", "resources", "people", "clients", "registration", "origins"],
  );
  const url = own(issuer);
  return {
    issuer,
    listen: listen === "" ? address(url.host) : address(listen),
    hosts: new Set([...LOOPBACK].map((name) => `${name}:${url.port || 80}`)),
    keys: keys.length ? keys.map(givenKey) : [madeKey()],
    resources: new Map(entries(resources, "resources").map(([id, entry]) => [id, resource(id, entry)])),
    people: new Map(entries(people, "people").map(([name, entry]) => [name, person(name, entry)])),
    clients: new Map(entries(clients, "clients").map(([id, entry]) => [id, client(id, entry)])),
    registration: of(registration, "boolean", "registration"),
    origins: new Set(texts(origins, "origins").map(origin)),
  };
}

/** The issuer's address: one that only this machine can dial, so that no one else's tokens come from here. */
function own(issuer) {
  const url = URL.canParse(issuer) ? new URL(issuer) : undefined;
  if (url?.origin !== issuer || url.protocol !== "http:" || !LOOPBACK.has(url.hostname)) {
    throw new ConfigurationError("issuer: an address such as http://127.0.0.1:9000 is needed, of this machine only");
  }
  return url;
}

/** An origin as browsers write it; never `null`, which every sandboxed page has, and no pattern. */
function origin(text) {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.origin !== text || !["http:", "https:"].includes(url.protocol) || text.includes("*")) {
    throw new ConfigurationError(`origins: ${text} is not one as browsers send it, such as http://localhost:6274`);
  }
  return text;
}

function address(text) {
  const [, host, port] = /^(.+):(\d{1,5})$/.exec(text) ?? [];
  if (!host) throw new ConfigurationError("listen: HOST:PORT is needed");
  return { host: host.replace(/^\[|\]$/g, ""), port: Number(port) };
}

function givenKey(entry) {
  const { kid, pem } = members(entry, "a key", ["kid", "pem"]);
  let key;
  try {
    key = createPrivateKey(of(pem, "string", "pem"));
  } catch (error) {
    throw new ConfigurationError(`key ${kid}: ${error.message}`);
  }
  return signing(key, of(kid, "string", "kid"));
}

function madeKey() {
  return signing(generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey, "made-at-start");
}

function signing(key, kid) {
  const jwk = key.export({ format: "jwk" });
  const alg = ALGORITHMS[[jwk.kty, jwk.crv].filter(Boolean).join(" ")];
  if (!alg) throw new ConfigurationError(`key ${kid}: RSA, EC P-256 or Ed25519 is needed`);
  return { ...jwk, kid, alg, use: "sig" };
}

function resource(id, entry) {
  const { scopes, tokens = "jwt", ttl_s = 3600 } = members(entry, id, ["scopes", "tokens", "ttl_s"]);
  if (!URL.canParse(id)) throw new ConfigurationError(`resources: ${id} is not a URI`);
  if (!["jwt", "opaque"].includes(tokens)) throw new ConfigurationError(`${id}: tokens are jwt or opaque`);
  return { scopes: texts(scopes, `${id}: scopes`), tokens, ttl_s: of(ttl_s, "number", `${id}: ttl_s`) };
}

function person(name, entry) {
  const { password, claims = {} } = members(entry, name, ["password", "claims"]);
  if (of(password, "string", `${name}: password`) === "") throw new ConfigurationError(`${name}: the password is empty`);
  return { password, claims };
}

function client(id, entry) {
  const { metadata, claims = {}, introspects = false, exchanges } = members(
    entry, id, ["metadata", "claims", "introspects", "exchanges"],
  );
  const exchange = exchanges && members(exchanges, `${id}: exchanges`, ["from", "to", "scopes"]);
  return {
    metadata: { ...metadata, client_id: id },
    claims,
    introspects: of(introspects, "boolean", `${id}: introspects`),
    exchanges: exchange && {
      from: texts(exchange.from, `${id}: from`),
      to: texts(exchange.to, `${id}: to`),
      scopes: texts(exchange.scopes, `${id}: scopes`),
    },
  };
}

function entries(value, what) {
  return Object.entries(of(value, "object", what));
}

function members(value, what, known) {
  const unknown = Object.keys(of(value, "object", what)).filter((name) => !known.includes(name));
  if (unknown.length) throw new ConfigurationError(`${what}: ${unknown.join(", ")} is not known`);
  return value;
}

function texts(value, what) {
  if (!Array.isArray(value)) throw new ConfigurationError(`${what}: a list is needed`);
  return value.map((text) => of(text, "string", what));
}

function of(value, type, what) {
  if (typeof value !== type || value === null || Array.isArray(value)) {
    throw new ConfigurationError(`${what}: ${type === "object" ? "an object" : `a ${type}`} is needed`);
  }
  return value;
}
