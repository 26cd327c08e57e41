// From the configuration to oidc-provider, which is the authorization server; what is here are its settings.
import Provider, { errors } from "oidc-provider";

import { pagesOf } from "./origins.js";
import { problem } from "./pages.js";
import { GRANT as EXCHANGE, exchange } from "./token_exchange.js";

const HOUR = 3600;

/** Build the provider; `secrets` sign its cookies. */
export function provide(configuration, stores, secrets) {
  const { issuer, keys, resources, people, clients, registration, origins } = configuration;
  const [signing] = keys;
  const acting = new WeakMap(); // access token → the actor chain of a token exchange

  const provider = new Provider(issuer, {
    adapter: stores.adapter,
    clients: [...clients.values()].map((client) => client.metadata),
    clientDefaults: { id_token_signed_response_alg: signing.alg },
    cookies: { keys: secrets, long: { sameSite: "lax" }, short: { sameSite: "lax" } },
    jwks: { keys },
    // Registration checks the scopes that a client names against this list, so it has those of the resources.
    scopes: ["openid", "offline_access", ...new Set([...resources.values()].flatMap((resource) => resource.scopes))],
    pkce: { required: () => true },
    responseTypes: ["code"],
    rotateRefreshToken: true,
    issueRefreshToken: (_, client) => client.grantTypeAllowed("refresh_token"),
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    findAccount: (_, name) => (people.has(name) ? { accountId: name, claims: () => ({ sub: name }) } : undefined),
    extraTokenClaims: (_, token) => ({
      ...(token.accountId ? people.get(token.accountId) : clients.get(token.clientId))?.claims,
      ...(acting.has(token) && { act: acting.get(token) }),
    }),
    renderError: (ctx, out) => {
      ctx.type = "html";
      ctx.set(problem.headers);
      ctx.body = problem(out.error, out.error_description);
    },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      dPoP: { enabled: true },
      registration: { enabled: registration },
      revocation: { enabled: true },
      userinfo: { enabled: false },
      introspection: {
        enabled: true,
        allowedPolicy: (_, client) => clients.get(client.clientId)?.introspects === true,
      },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: () => true,
        getResourceServerInfo(_, id) {
          const resource = resources.get(id);
          if (!resource) throw new errors.InvalidTarget();
          return {
            scope: resource.scopes.join(" "),
            audience: id,
            accessTokenTTL: resource.ttl_s,
            accessTokenFormat: resource.tokens,
            ...(resource.tokens === "jwt" && { jwt: { sign: { alg: signing.alg, kid: signing.kid } } }),
          };
        },
      },
    },
    ttl: {
      AccessToken: (_, token) => token.resourceServer?.accessTokenTTL ?? HOUR,
      ClientCredentials: (_, token) => token.resourceServer?.accessTokenTTL ?? HOUR,
      AuthorizationCode: 60,
      Grant: 24 * HOUR,
      IdToken: HOUR,
      Interaction: HOUR,
      RefreshToken: 8 * HOUR,
      Session: 8 * HOUR,
    },
  });
  provider.use(pagesOf(origins, issuer));
  provider.on("server_error", (_, error) => console.error(error));
  if ([...clients.values()].some((client) => client.exchanges)) {
    const { handler, parameters } = exchange(provider, configuration, acting);
    provider.registerGrantType(EXCHANGE, handler, parameters);
  }
  return provider;
}
