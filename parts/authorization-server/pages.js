// The two pages that people see: log in, and lend an agent some of what they may do.
import { createHash, timingSafeEqual } from "node:crypto";

const LONGEST_FORM = 4096;

const HEADERS = {
  "Content-Type": "text/html; charset=utf-8",
  "Cache-Control": "no-store",
  // Nothing is loaded, and no other page may show these in a frame and have a button clicked.
  "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
};

const WHAT = {
  openid: "know your user name",
  offline_access: "stay logged in when you are away",
};

export class Pages {
  #provider;
  #people;
  #clients;

  constructor(provider, { people, clients }) {
    this.#provider = provider;
    this.#people = people;
    this.#clients = clients;
  }

  /** Answer a request for one of the pages; returns whether it was one. */
  serve(request, response) {
    const [path, query = ""] = request.url.split("?");
    const [, step] = /^\/interaction\/[\w-]+(?:\/(login|consent|deny))?$/.exec(path) ?? [null, null];
    if (step === null) return false;
    const wanted = { GET: !step, POST: Boolean(step) }[request.method];
    const work = wanted ? this.#page(request, response, step, query) : send(response, 405, problem("wrong method"));
    Promise.resolve(work).catch((error) => this.#failed(response, error));
    return true;
  }

  async #page(request, response, step, query) {
    const { uid, prompt, params, session, grantId } = await this.#provider.interactionDetails(request, response);
    const finish = (result, merge) =>
      this.#provider.interactionFinished(request, response, result, { mergeWithLastSubmission: merge });
    const client = await this.#provider.Client.find(params.client_id);
    if (step === "login") {
      const form = await body(request);
      const name = form.get("user") ?? "";
      if (!this.#knows(name, form.get("password") ?? "")) {
        return send(response, 401, login(uid, client, "User and password do not belong together."));
      }
      return finish({ login: { accountId: name } }, false);
    }
    if (step === "deny") return finish({ error: "access_denied", error_description: "the user said no" }, false);
    if (prompt.name === "login" || query === "as=other") return send(response, 200, login(uid, client));
    if (step === "consent") {
      const id = await this.#grant(prompt, params, session, grantId);
      return finish({ consent: { grantId: id } }, true);
    }
    return send(response, 200, this.#consent(uid, prompt, params, session, client));
  }

  #knows(name, password) {
    const digest = (text) => createHash("sha256").update(text).digest();
    const person = this.#people.get(name);
    return timingSafeEqual(digest(person?.password ?? ""), digest(password)) && person !== undefined;
  }

  /** What the same user allowed the same client before stays: else the rest would be asked for once more. */
  async #grant({ details }, params, session, grantId) {
    const own = { accountId: session.accountId, clientId: params.client_id };
    const known = grantId && (await this.#provider.Grant.find(grantId));
    const same = known && known.accountId === own.accountId && known.clientId === own.clientId;
    const grant = same ? known : new this.#provider.Grant(own);
    if (details.missingOIDCScope) grant.addOIDCScope(details.missingOIDCScope.join(" "));
    for (const [resource, scopes] of Object.entries(details.missingResourceScopes ?? {})) {
      grant.addResourceScope(resource, scopes.join(" "));
    }
    return grant.save();
  }

  #consent(uid, { details }, params, session, client) {
    const resources = [params.resource ?? []].flat();
    const scopes = new Set([details.missingOIDCScope, ...Object.values(details.missingResourceScopes ?? {})].flat());
    scopes.delete(undefined);
    const asked = scopes.size ? [...scopes].map((scope) => `<li>${safe(WHAT[scope] ?? scope)}</li>`) : ["<li>what it had before</li>"];
    const registered = this.#clients.has(client.clientId);
    return page(
      "May this agent act for you?",
      `<p><b>${safe(client.clientName ?? client.clientId)}</b>${registered ? "" : " (it chose this name itself)"}
       asks to act for <b>${safe(session.accountId)}</b>${resources.length ? ` at ${resources.map(safe).join(", ")}` : ""}:</p>
       <ul>${asked.join("")}</ul>
       <p>The answer goes to ${safe(new URL(params.redirect_uri).host)}.</p>
       <form method="post" action="/interaction/${uid}/consent"><button id="allow" autofocus>Allow</button></form>
       <form method="post" action="/interaction/${uid}/deny"><button id="deny">Do not allow</button></form>
       <p><a href="/interaction/${uid}?as=other">Log in as another user</a></p>`,
    );
  }

  #failed(response, error) {
    const status = error.statusCode ?? error.status ?? 500;
    if (status >= 500) console.error(error);
    if (!response.headersSent) send(response, status, problem(error.message, error.error_description));
  }
}

/** The page of an error; `headers` go with it. */
export function problem(error, description) {
  return page("That did not work", `<p>${safe(error ?? "")}: ${safe(description ?? "start again from the client")}</p>`);
}
problem.headers = HEADERS;

function login(uid, client, complaint = "") {
  return page(
    "Log in",
    `<p><b>${safe(client.clientName ?? client.clientId)}</b> sent you here. This is the demo's authorization server.</p>
     <p role="alert">${complaint}</p>
     <form method="post" action="/interaction/${uid}/login">
       <label>User <input name="user" autocomplete="username" autofocus required></label>
       <label>Password <input name="password" type="password" autocomplete="current-password" required></label>
       <button id="login">Log in</button>
     </form>`,
  );
}

function page(title, content) {
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title>
<style>body{font:16px/1.5 system-ui;max-width:30rem;margin:4rem auto;padding:0 1rem}label{display:block;margin:.5rem 0}
button{padding:.4rem 1rem}form{margin:.5rem 0}[role=alert]{color:#a00}</style>
<h1>${title}</h1>${content}</html>`;
}

function send(response, status, html) {
  response.writeHead(status, HEADERS).end(html);
}

async function body(request) {
  let text = "";
  for await (const chunk of request.setEncoding("utf8")) {
    text += chunk;
    if (text.length > LONGEST_FORM) throw Object.assign(new Error("the form is too long"), { statusCode: 413 });
  }
  return new URLSearchParams(text);
}

function safe(text) {
  return String(text).replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
}
