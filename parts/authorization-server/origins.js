// Pages that are clients, such as the MCP Inspector's: which of them may call, and read what they are answered (CORS).
//
// oidc-provider lets any page read what everybody may know (metadata, keys). Elsewhere it says yes to every preflight
// and decides when it knows the client; registration it leaves out. So the list counts here, before all of that.

// What everybody may read, and where browsers are sent with a link, which is no call of a page.
const OPEN = /^\/(?:\.well-known\/[\w-]+|jwks|auth(?:\/[\w-]+)?)$/;

/** What is done first with each request: refuse pages of other origins, let those of the list call and read. */
export function pagesOf(origins, issuer) {
  return async (ctx, next) => {
    const origin = ctx.get("Origin");
    if (OPEN.test(ctx.path) || origin === issuer) return next();
    ctx.vary("Origin");
    if (origin === "") return next();
    if (!origins.has(origin)) {
      ctx.status = 403;
      ctx.body = { error: "invalid_request", error_description: "pages of this origin are no clients here" };
      return undefined;
    }
    ctx.set("Access-Control-Allow-Origin", origin);
    if (ctx.method !== "OPTIONS") {
      ctx.set("Access-Control-Expose-Headers", "WWW-Authenticate, DPoP-Nonce");
      return next();
    }
    ctx.set({
      "Access-Control-Allow-Methods": "POST",
      "Access-Control-Allow-Headers": "Authorization, Content-Type, DPoP, MCP-Protocol-Version",
      "Access-Control-Max-Age": "600",
    });
    ctx.status = 204;
    return undefined;
  };
}
