// The wallet of this person: made without being asked for, topped up from the sandbox, and always as the server last
// said it. Events of this object: `change`.
import { uuid } from "./util.js";

// In a real app this is what its owner chose. The demo types it for them, because nothing of worth is behind it.
const DEMO_PIN = "4071";
/** What a top-up pays in, in major units of whatever currency the wallet is in. */
const TOP_UP = "500";

export class Purse extends EventTarget {
  #api;
  #signaling;
  #opened = () => {};

  wallet = null;

  /** Resolved when the wallet is there, or when there is none to be had; a call waits for it. */
  ready = Promise.resolve();

  constructor({ api, signaling }) {
    super();
    this.#api = api;
    this.#signaling = signaling;
    signaling.addEventListener("sync", ({ detail }) => this.#synced(detail.wallet));
    signaling.addEventListener("told", ({ detail }) => {
      if (detail.event === "WALLET_UPDATED") this.#take(detail.payload.wallet);
    });
  }

  /** What calls can be paid from, in minor units. */
  get spendableMinor() {
    return this.wallet ? this.wallet.availableMinor + this.wallet.callCredits.availableMinor : 0;
  }

  /** Somebody has joined. */
  open() {
    this.ready = new Promise((done) => {
      this.#opened = done;
    });
  }

  forget() {
    this.wallet = null;
    this.#opened();
    this.#changed();
  }

  /** Pay in, in the currency that is needed; without one in the wallet's own. Gives the payment. */
  async topUp(currency = this.wallet?.currency) {
    if (!this.wallet || (currency && currency !== this.wallet.currency)) await this.#create(currency);
    const { payment } = await this.#deposit(currency, uuid());
    if (!this.#signaling.online) await this.#read(); // nobody will tell us
    return payment;
  }

  /** `SYNC` has the wallet; a person who has none gets one with money in it, so that the first call can be made. */
  async #synced(wallet) {
    try {
      if (wallet) this.#take(wallet);
      if (wallet || this.wallet) return;
      await this.#create();
      await this.#deposit(undefined, "welcome"); // the same key: two tabs of one person pay in once
    } catch (refusal) {
      console.debug(`wallet: ${refusal.code} ${refusal.message}`); // the button tries again
    } finally {
      this.#opened();
    }
  }

  async #read() {
    this.#take((await this.#api.call("GET", "/api/wallet")).wallet);
  }

  async #create(currency) {
    try {
      const { wallet } = await this.#api.call("POST", "/api/wallet/create", { pin: DEMO_PIN, currency });
      if (!this.wallet) this.#take(wallet);
    } catch (refusal) {
      if (refusal.code !== "WALLET_EXISTS") throw refusal;
    }
  }

  #deposit(currency, opId) {
    return this.#api.call("POST", "/api/wallet/deposit", { amount: TOP_UP, currency, opId });
  }

  /** An older one than we know came late; one in another currency is not the one on the page. */
  #take(wallet) {
    const known = this.wallet;
    if (known && (known.currency !== wallet.currency || known.version > wallet.version)) return;
    this.wallet = wallet;
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** What a top-up pays in, for the label of its button. */
export function topUpText(currency) {
  const style = { style: "currency", currency, currencyDisplay: "narrowSymbol", maximumFractionDigits: 0 };
  return new Intl.NumberFormat(undefined, style).format(Number(TOP_UP));
}
