// What the server remembers, in memory: it outlives a reading of the configuration, and is gone with the process.

/** Entries of one kind (tokens, sessions, registered clients, …). Anyone can make more; the oldest give way. */
const MOST = 5_000;

export class Stores {
  #kinds = new Map();

  /** The adapter that oidc-provider asks for, by the name of a model. */
  adapter = (model) => {
    let kind = this.#kinds.get(model);
    if (!kind) this.#kinds.set(model, (kind = new Kind()));
    return kind;
  };
}

class Kind {
  #entries = new Map();

  async upsert(id, payload, expiresIn) {
    this.#entries.delete(id); // what is written again is the youngest
    this.#entries.set(id, { payload, until: expiresIn ? Date.now() + expiresIn * 1000 : Infinity });
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= MOST) break;
      this.#entries.delete(oldest);
    }
  }

  async find(id) {
    const entry = this.#entries.get(id);
    if (!entry) return undefined;
    if (entry.until > Date.now()) return entry.payload;
    this.#entries.delete(id);
    return undefined;
  }

  async findByUid(uid) {
    return this.#first((payload) => payload.uid === uid);
  }

  async findByUserCode(code) {
    return this.#first((payload) => payload.userCode === code);
  }

  async consume(id) {
    const payload = await this.find(id);
    if (payload) payload.consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    this.#entries.delete(id);
  }

  async revokeByGrantId(grantId) {
    for (const [id, { payload }] of this.#entries) {
      if (payload.grantId === grantId) this.#entries.delete(id);
    }
  }

  #first(wanted) {
    for (const { payload, until } of this.#entries.values()) {
      if (until > Date.now() && wanted(payload)) return payload;
    }
    return undefined;
  }
}
