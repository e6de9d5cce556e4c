// The money of the call on the screen. The server says what is charged and how long the money lasts, every few seconds;
// in between the figures run by the tariff, and what the server says next corrects them. Events of this object:
// `change`.
import { costOf } from "./money.js";

const EXACT_MS = 1500; // a tick says whole seconds: within this our own count is the finer one
const WARN_MS = 60_000; // the server's first warning

export class Meter extends EventTarget {
  #phone;
  #leg = null;
  #call = null;
  #said = 0; // what was charged when the server last said so
  #part = { minor: 0, talkMs: 0 }; // where the present tariff began
  #left = null; // {ms, at, running}: how long the money lasts
  #span = 0; // the longest it has lasted since money last came in: the whole of the bar

  /** The payer's last warning, in seconds; null when there is none, or money has come in since. */
  warned = null;

  constructor({ phone, signaling }) {
    super();
    this.#phone = phone;
    signaling.addEventListener("told", ({ detail: { event, payload } }) => {
      if (payload.callId === undefined || payload.callId !== phone.leg?.id) return;
      if (event === "BILLING_TICK") this.#tick(payload);
      if (event === "BILLING_LOW_BALANCE") this.#low(payload);
    });
    phone.addEventListener("change", () => this.#follow());
  }

  /** The tariff of the call; null before it has one. */
  get price() {
    return this.#call?.price ?? this.#leg?.price ?? null;
  }

  get paying() {
    return this.#leg?.role === "caller";
  }

  /** Minor units, running. */
  get chargedMinor() {
    if (this.#call?.state !== "active") return this.#said;
    return Math.max(this.#said, this.#byTariff(this.#leg.seconds * 1000));
  }

  /** How long the money lasts, in milliseconds; null without end. */
  get leftMs() {
    if (!this.#left) return null;
    const { ms, at, running } = this.#left;
    return Math.max(0, running ? ms - (performance.now() - at) : ms);
  }

  /** What is left of the money, from 1 to 0. */
  get share() {
    return this.#span ? Math.min(1, (this.leftMs ?? 0) / this.#span) : 1;
  }

  /** Ours runs late by the way of a message, so it may be a block behind. Ahead, or further behind, it was wrong. */
  #says(minor) {
    this.#said = minor;
    if (!this.#call) return;
    const behind = minor - this.#byTariff(this.#leg.seconds * 1000);
    if (behind < 0 || behind > costOf(this.#call.price, 1)) this.#part.minor += behind;
  }

  #byTariff(talkMs) {
    return this.#part.minor + costOf(this.#call.price, talkMs - this.#part.talkMs);
  }

  #follow() {
    const { leg } = this.#phone;
    if (leg !== this.#leg) {
      [this.#leg, this.#call, this.#said, this.#left, this.#span] = [leg, null, 0, null, 0];
      this.#part = { minor: 0, talkMs: 0 };
      this.warned = null;
    }
    const call = leg?.call;
    if (!call || call === this.#call) return;
    if (this.#call && this.#call.price.ratePerMinuteMinor !== call.price.ratePerMinuteMinor) {
      this.#part = { minor: call.costMinor, talkMs: leg.seconds * 1000 };
    }
    this.#call = call;
    this.#says(call.costMinor);
    if (call.state === "ended") this.#left = null;
    else this.#lasts(call.endsInMs ?? null, true);
    this.#changed();
  }

  #tick({ chargedMinor, remainingSeconds }) {
    if (this.#leg.over) return;
    this.#says(chargedMinor);
    this.#lasts(remainingSeconds === null ? null : remainingSeconds * 1000, false);
    this.#changed();
  }

  #low({ remainingSeconds }) {
    this.warned = remainingSeconds;
    this.#changed();
  }

  #lasts(ms, exact) {
    const before = this.leftMs;
    const running = this.#call?.state === "active";
    if (ms === null) {
      this.#left = null;
      this.warned = null;
      return;
    }
    const ours = !exact && before !== null && before >= ms && before - ms < EXACT_MS;
    this.#left = { ms: ours ? before : ms, at: performance.now(), running };
    if (before === null || ms > before + EXACT_MS) this.#span = ms; // money came in, or another tariff
    if (ms > WARN_MS) this.warned = null;
    else if (running && this.paying) this.warned ??= Math.floor(ms / 1000); // a page that came after the warning
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
