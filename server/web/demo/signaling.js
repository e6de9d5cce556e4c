// The socket: asks with an answer, what the server tells us, and a connection that mends itself.
//
// Events of this object: `status` (detail: "online" | "connecting" | "offline"), `sync` (detail: the SYNC payload),
// `told` (detail: {event, payload}) for everything else the server says.
import { io } from "../vendor/socket.io.esm.min.js";
import { Refusal, memory } from "./util.js";

const ASK_TIMEOUT_MS = 8000;
const TOKEN_CODES = new Set(["TOKEN_EXPIRED", "TOKEN_INVALID", "TOKEN_MISSING"]);
const FINAL_CODES = new Set(["ACCOUNT_BANNED", "ACCOUNT_DELETED"]);

const tell = (target, type, detail) => target.dispatchEvent(new CustomEvent(type, { detail }));

export class Signaling extends EventTarget {
  #api;
  #socket = null;
  #retry = null;
  #retryMs = 500;

  constructor(api) {
    super();
    this.#api = api;
  }

  get online() {
    return Boolean(this.#socket?.connected);
  }

  open() {
    this.close();
    const socket = io({
      transports: ["websocket"],
      auth: (done) => done({ token: this.#api.token, deviceId: this.#api.deviceId, since: memory.get("since") }),
      reconnectionDelay: 300,
      reconnectionDelayMax: 4000,
    });
    this.#socket = socket;
    tell(this, "status", "connecting");
    socket.on("connect", () => {
      this.#retryMs = 500;
      tell(this, "status", "online");
    });
    socket.on("disconnect", (reason) => {
      tell(this, "status", "connecting");
      // A close by the server ends the client's own attempts; it may mean "token over", so we renew and come back.
      if (reason === "io server disconnect") this.#comeBack({ renew: true });
    });
    socket.on("connect_error", (error) => this.#refused(error));
    socket.onAny((event, payload) => this.#told(event, payload));
  }

  close() {
    clearTimeout(this.#retry);
    this.#socket?.removeAllListeners();
    this.#socket?.offAny();
    this.#socket?.disconnect();
    this.#socket = null;
  }

  /**
   * Send an event and wait for its ack. Gives the ack's `data`; throws a Refusal. `tries` > 1 sends again after a
   * time-out: only for what is safe to repeat (a call's own transitions, or a payload with an `opId`).
   */
  async ask(event, payload, { tries = 1, timeoutMs = ASK_TIMEOUT_MS } = {}) {
    for (let left = tries; ; left -= 1) {
      const socket = this.#socket;
      if (!socket) throw new Refusal({ code: "OFFLINE", message: "You are not connected." });
      let ack;
      try {
        ack = await socket.timeout(timeoutMs).emitWithAck(event, payload);
      } catch {
        if (left > 1) continue;
        throw new Refusal({ code: "NO_ANSWER", message: "The server did not answer in time." });
      }
      if (ack?.ok) return ack.data ?? {};
      throw new Refusal(ack?.error);
    }
  }

  /** For what may be lost without harm: no answer wanted, refusals only logged. */
  hint(event, payload) {
    this.ask(event, payload).catch((refusal) => console.debug(`${event}: ${refusal.code} ${refusal.message}`));
  }

  #told(event, payload) {
    if (event === "SYNC") {
      if (payload.deviceId) this.#api.deviceId = payload.deviceId;
      // Nothing follows, or what followed is gone: from here on only newer events matter.
      if (Number.isFinite(payload.seq) && (payload.gap || !payload.missed)) memory.set("since", payload.seq);
      tell(this, "sync", payload);
      return;
    }
    if (event === "AUTH_EXPIRING") {
      this.#renewHere();
      return;
    }
    tell(this, "told", { event, payload: payload ?? {} });
    // What was handled need not be sent again. `logSeq` counts in this person's log; a `seq` may count elsewhere.
    if (Number.isFinite(payload?.logSeq)) memory.set("since", Math.max(memory.get("since") ?? 0, payload.logSeq));
  }

  async #renewHere() {
    try {
      const token = await this.#api.renew();
      await this.ask("AUTH_REFRESH", { token }, { tries: 2 });
    } catch (refusal) {
      console.debug(`AUTH_REFRESH: ${refusal.code} ${refusal.message}`);
    }
  }

  #refused(error) {
    tell(this, "status", "connecting");
    const code = error.data?.code;
    if (!code || this.#socket?.active) return; // a transport fault: the client tries again on its own
    if (FINAL_CODES.has(code)) {
      tell(this, "status", "offline");
      this.#api.onSignedOut(new Refusal(error.data, 401));
      return;
    }
    this.#comeBack({ renew: TOKEN_CODES.has(code) });
  }

  #comeBack({ renew }) {
    clearTimeout(this.#retry);
    const socket = this.#socket;
    const delay = this.#retryMs * (0.75 + Math.random() / 2);
    this.#retryMs = Math.min(this.#retryMs * 2, 8000);
    this.#retry = setTimeout(async () => {
      try {
        if (renew) await this.#api.renew();
      } catch (refusal) {
        if (refusal.status === 401 || refusal.status === 403) return; // signed out; the page has been told
      }
      if (this.#socket === socket) socket?.connect();
    }, delay);
  }
}
