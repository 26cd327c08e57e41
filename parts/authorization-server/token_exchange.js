// Token exchange (RFC 8693), which oidc-provider leaves to its user: an agent that holds a token of a person for its own
// API gets one for another resource. The new token says who acts (`act`), over whom acted before.
//
// Which client may do so is in its `exchanges`: `from` are audiences of the tokens that it may give, `to` the resources
// that it may ask for, `scopes` the most that it gets there.
import { createLocalJWKSet, jwtVerify } from "jose";
import { errors } from "oidc-provider";

export const GRANT = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token";
const MOST_ACTORS = 8;

/** Return the handler of the grant and its parameters; `acting` gets the actor chain of each token. */
export function exchange(provider, { issuer, keys, resources, people, clients }, acting) {
  const published = createLocalJWKSet({ keys: keys.map(({ d, p, q, dp, dq, qi, ...open }) => open) });

  /** The claims of a person's token that this server issued. */
  async function subject(token) {
    if (token.split(".").length === 3) {
      const { payload } = await jwtVerify(token, published, { issuer, typ: "at+jwt" }).catch(refuse);
      return payload;
    }
    const found = await provider.AccessToken.find(token);
    if (!found?.isValid) refuse();
    const { accountId: sub, clientId: client_id, aud, exp, extra, jkt } = found;
    return { ...extra, sub, client_id, aud, exp, ...(jkt && { cnf: { jkt } }) };
  }

  async function handler(ctx) {
    const { params, client } = ctx.oidc;
    const allowed = clients.get(client.clientId)?.exchanges;
    if (!allowed || client.dpopBoundAccessTokens) {
      throw new errors.UnauthorizedClient("this client may not exchange tokens for such that anybody can present");
    }
    if (params.subject_token_type !== ACCESS_TOKEN || typeof params.subject_token !== "string") {
      throw new errors.InvalidRequest("an access token is needed as subject_token");
    }
    if (params.actor_token !== undefined || ![undefined, ACCESS_TOKEN].includes(params.requested_token_type)) {
      throw new errors.InvalidRequest("the client itself is the actor, and an access token is all there is");
    }
    const claims = await subject(params.subject_token);
    if (!people.has(claims.sub) || claims.sub === claims.client_id) refuse("not a person's token");
    if (claims.cnf) refuse("a token that is bound to a key is good for its holder only");
    const left = claims.exp - Math.floor(Date.now() / 1000);
    if (!(left > 0)) refuse("the token is about to expire");
    if (!allowed.from.includes(claims.aud)) refuse("the token is for somebody else");
    const { resource } = params;
    if (!resources.has(resource) || !allowed.to.includes(resource)) throw new errors.InvalidTarget();

    const { scopes, tokens, ttl_s } = resources.get(resource);
    const most = scopes.filter((scope) => allowed.scopes.includes(scope));
    const wanted = params.scope ? params.scope.split(" ") : most;
    const beyond = wanted.find((scope) => !most.includes(scope));
    if (beyond) throw new errors.InvalidScope("requested scope is not allowed", beyond);
    const act = { sub: client.clientId, ...(claims.act && { act: claims.act }) };
    if (depth(act) > MOST_ACTORS) refuse("too many have acted already");

    const token = new provider.AccessToken({
      accountId: claims.sub,
      client,
      gty: "token_exchange",
      scope: wanted.join(" ") || undefined,
      expiresIn: Math.min(ttl_s, left),
    });
    token.resourceServer = new provider.ResourceServer(resource, {
      scope: scopes.join(" "),
      audience: resource,
      accessTokenFormat: tokens,
      ...(tokens === "jwt" && { jwt: { sign: { alg: keys[0].alg, kid: keys[0].kid } } }),
    });
    acting.set(token, act);
    ctx.oidc.entity("AccessToken", token);
    ctx.body = {
      access_token: await token.save(),
      issued_token_type: ACCESS_TOKEN,
      token_type: token.tokenType,
      expires_in: token.expiration,
      scope: token.scope,
    };
  }

  const parameters = [
    "subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type", "resource", "scope",
  ];
  return { handler, parameters };
}

function refuse(reason) {
  throw new errors.InvalidGrant(typeof reason === "string" ? reason : "the token is not good here");
}

function depth(act) {
  return act ? 1 + depth(act.act) : 0;
}
