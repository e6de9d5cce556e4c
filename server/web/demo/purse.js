// The wallet of this person: made without being asked for, topped up at the gateway's checkout, and always as the
// server last said it. Events of this object: `change`, `paid` (detail: the payment, when it has come to an end),
// `payout` (detail: a withdrawal that has changed).
import { here, payHere } from "./checkout.js";
import { uuid } from "./util.js";

// In a real app this is what its owner chose. The demo types it for them, because nothing of worth is behind it.
export const DEMO_PIN = "4071";
/** What a top-up pays in, in major units of whatever currency the wallet is in. */
const TOP_UP = "500";

export class Purse extends EventTarget {
  #api;
  #signaling;
  #opened = () => {};

  wallet = null;

  /** The payment whose checkout is open in another tab, or null. */
  pending = null;

  /** Resolved when the wallet is there, or when there is none to be had; a call waits for it. */
  ready = Promise.resolve();

  constructor({ api, signaling }) {
    super();
    this.#api = api;
    this.#signaling = signaling;
    signaling.addEventListener("sync", ({ detail }) => this.#synced(detail.wallet));
    signaling.addEventListener("told", ({ detail }) => {
      if (detail.event === "WALLET_UPDATED") this.#take(detail.payload.wallet);
      if (detail.event === "PAYMENT_UPDATED") this.#paid(detail.payload.payment);
      if (detail.event === "PAYOUT_UPDATED") this.dispatchEvent(new CustomEvent("payout", { detail: detail.payload.payout }));
    });
    // Back from the checkout: if we were not told, we ask.
    addEventListener("focus", () => this.pending && this.ask().catch((refusal) => console.debug(refusal.message)));
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
    this.pending = null;
    this.#opened();
    this.#changed();
  }

  /**
   * Begin to pay in, in the currency that is needed; without one in the wallet's own. `tab` is the one that the click
   * has opened (`checkoutTab`): it goes to the checkout. Without one this page does.
   */
  async topUp({ tab, currency = this.wallet?.currency, amount = TOP_UP, into = "primary" }) {
    try {
      if (!this.wallet || (currency && currency !== this.wallet.currency)) await this.#create(currency);
      const { payment } = await this.#deposit({ amount, currency, into, opId: uuid() });
      this.pending = payment;
      if (payment.checkoutUrl && tab) tab.location.replace(here(payment.checkoutUrl));
      else if (payment.checkoutUrl) location.assign(here(payment.checkoutUrl));
    } catch (refusal) {
      tab?.close();
      throw refusal;
    }
    this.#changed();
    return this.pending;
  }

  /** Have the gateway asked how the pending payment stands. */
  async ask(reference = this.pending?.reference) {
    const { payment, wallet } = await this.#api.call("POST", "/api/wallet/verify-deposit", { reference });
    this.#take(wallet);
    this.#paid(payment);
    return payment;
  }

  /** `SYNC` has the wallet; a person who has none gets one with money in it, so that the first call can be made. */
  async #synced(wallet) {
    try {
      if (wallet) this.#take(wallet);
      if (wallet || this.wallet) return;
      await this.#create();
      // The same key: two tabs of one person pay in once. So that the first call can be made at once, this page pays
      // the first money itself, on the very checkout that a person sees later.
      const { payment } = await this.#deposit({ amount: TOP_UP, opId: "welcome" });
      if (payment.checkoutUrl && (await payHere(payment.checkoutUrl))) await this.ask(payment.reference);
    } catch (refusal) {
      console.debug(`wallet: ${refusal.code} ${refusal.message}`); // the button tries again
    } finally {
      this.#opened();
    }
  }

  async #create(currency) {
    try {
      const { wallet } = await this.#api.call("POST", "/api/wallet/create", { pin: DEMO_PIN, currency });
      if (!this.wallet) this.#take(wallet);
    } catch (refusal) {
      if (refusal.code !== "WALLET_EXISTS") throw refusal;
    }
  }

  #deposit(ask) {
    return this.#api.call("POST", "/api/wallet/deposit", ask);
  }

  #paid(payment) {
    if (payment.reference !== this.pending?.reference || payment.status === "pending") return;
    this.pending = null;
    this.#changed();
    this.dispatchEvent(new CustomEvent("paid", { detail: payment }));
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
