// The REST side: one fetch for everything, tokens that renew themselves, and the few routes the page needs.
import { Refusal, memory, slug, uuid } from "./util.js";

const ICE_KEPT_MS = 300_000;

export class Api {
  #renewing = null;
  #ice = null;

  /** Called when the session is over for good (refresh refused), with the refusal. */
  onSignedOut = () => {};

  get session() {
    return memory.get("session");
  }

  get me() {
    return this.session?.user ?? null;
  }

  get token() {
    return this.session?.accessToken ?? null;
  }

  /** This tab is a device of its own; a reload keeps it. */
  get deviceId() {
    let id = memory.get("deviceId");
    if (!id) memory.set("deviceId", (id = uuid()));
    return id;
  }

  set deviceId(id) {
    memory.set("deviceId", id);
  }

  /** Register `name`, or sign in when it exists. The password comes from the name: this is a demo and says so. */
  async join(name) {
    const username = slug(name);
    if (!username) throw new Refusal({ code: "NAME", message: "Type a name with at least one letter or digit." });
    const password = `demo-password-${username}`;
    const device = { id: this.deviceId, name: "Demo tab", platform: "web" };
    let answer;
    try {
      const email = `${username}@example.com`;
      const account = { email, username, password, displayName: name.trim(), device };
      answer = await this.#fetch("POST", "/api/auth/register", { body: account });
    } catch (refusal) {
      if (refusal.status !== 409) throw refusal;
      answer = await this.#fetch("POST", "/api/auth/login", { body: { identifier: username, password, device } });
    }
    this.#keep(answer);
    return this.me;
  }

  async leave() {
    const session = this.session;
    if (session) {
      await this.call("POST", "/api/auth/logout", { refreshToken: session.refreshToken }).catch(() => {});
    }
    memory.clear();
  }

  /** The person with exactly this name, whatever the case, be it us. Refuses with a sentence when there is none. */
  async findUser(name) {
    const wanted = name.trim().toLowerCase();
    if (!wanted) throw new Refusal({ code: "PEER", message: "Type the name of the person to reach." });
    if (this.me && slug(name) === this.me.username?.toLowerCase()) return this.me; // the search leaves us out
    const { items } = await this.call("GET", `/api/users?query=${encodeURIComponent(slug(name) || wanted)}`);
    const user =
      items.find((one) => one.username?.toLowerCase() === wanted) ??
      items.find((one) => one.username?.toLowerCase() === slug(name)) ??
      items.find((one) => one.displayName?.toLowerCase() === wanted);
    if (user) return user;
    throw new Refusal({ code: "USER_UNKNOWN", message: `Nobody here is called “${name.trim()}”. Have they joined yet?` });
  }

  /** For RTCPeerConnection. The credentials are time-limited: asked anew after some minutes; a call goes on without. */
  async iceConfig() {
    if (this.#ice && performance.now() - this.#ice.at < ICE_KEPT_MS) return this.#ice.config;
    try {
      const { iceServers = [], iceCandidatePoolSize = 0 } = await this.call("GET", "/api/ice-servers");
      this.#ice = { at: performance.now(), config: { iceServers, iceCandidatePoolSize } };
    } catch (refusal) {
      console.debug(`ice-servers: ${refusal.message}`);
    }
    return this.#ice?.config ?? { iceServers: [] };
  }

  async history() {
    return (await this.call("GET", "/api/calls/history?limit=20")).items ?? [];
  }

  async callById(id) {
    return (await this.call("GET", `/api/calls/${encodeURIComponent(id)}`)).call;
  }

  /** What a call would cost: `{price, availableMinor, affordableSeconds}`. Nothing is reserved. */
  priceOf(userId, type) {
    return this.call("GET", `/api/calls/price?to=${encodeURIComponent(userId)}&type=${type}`);
  }

  async chatWith(userId) {
    return (await this.call("GET", `/api/chat/history/${encodeURIComponent(userId)}?limit=30`)).items ?? [];
  }

  /** Upload a file, to be sent with a message. */
  async upload(file) {
    const form = new FormData();
    form.append("file", file, file.name);
    return (await this.call("POST", "/api/media", form)).media;
  }

  /** A file's bytes: an `<img>` of its own could not send the token. */
  file(path) {
    return this.#signedIn((token) => this.#fetch("GET", path, { token, as: "blob" }));
  }

  /** A request as the signed-in person. */
  call(method, path, body) {
    return this.#signedIn((token) => this.#fetch(method, path, { body, token }));
  }

  /** With the token that we have; when it has expired, once more with a new one. */
  async #signedIn(ask) {
    try {
      return await ask(this.token);
    } catch (refusal) {
      if (refusal.status !== 401 || !this.session) throw refusal;
      return ask(await this.renew());
    }
  }

  /** New tokens for the old. Refresh tokens are used once, so all who ask at the same time share one request. */
  renew() {
    this.#renewing ??= this.#renew().finally(() => {
      this.#renewing = null;
    });
    return this.#renewing;
  }

  async #renew() {
    const session = this.session;
    if (!session) throw new Refusal({ code: "TOKEN_MISSING", message: "You are not signed in." }, 401);
    try {
      const body = { refreshToken: session.refreshToken };
      this.#keep({ user: session.user, ...(await this.#fetch("POST", "/api/auth/refresh-token", { body })) });
    } catch (refusal) {
      if (refusal.status === 401 || refusal.status === 403) this.onSignedOut(refusal);
      throw refusal;
    }
    return this.token;
  }

  #keep({ user, accessToken, refreshToken }) {
    memory.set("session", { user, accessToken, refreshToken });
  }

  /** `body` is sent as JSON, or as the form that it is; `as` is "json" or "blob". */
  async #fetch(method, path, { body, token, as = "json" } = {}) {
    const headers = { Accept: as === "json" ? "application/json" : "*/*" };
    const form = body instanceof FormData; // the browser says which boundary it takes
    if (body !== undefined && !form) headers["Content-Type"] = "application/json";
    if (token) headers.Authorization = `Bearer ${token}`;
    let response;
    try {
      response = await fetch(path, { method, headers, body: form || body === undefined ? body : JSON.stringify(body) });
    } catch {
      throw new Refusal({ code: "OFFLINE", message: "The server cannot be reached." });
    }
    if (response.status === 204) return {};
    if (response.ok && as === "blob") return response.blob();
    const answer = await response.json().catch(() => ({}));
    if (response.ok) return answer;
    throw new Refusal(answer.error ?? { message: `The server answered ${response.status}.` }, response.status);
  }
}
