// The price of a call to the person named in the dial, asked as the name is typed. Events of this object: `change`.
import { wait } from "./util.js";

const PAUSE_MS = 300; // of typing

export class Quote extends EventTarget {
  #api;
  #name = "";
  #turn = 0;

  /** Whom it is for; null while nobody is named whom the server knows. */
  user = null;

  /** `{audio, video}`, each `{price, availableMinor, affordableSeconds}` as the server answers. */
  prices = null;

  constructor({ api }) {
    super();
    this.#api = api;
  }

  /** Somebody is named in the dial. Asks once for each name, after a pause of typing. */
  async name(name) {
    if (name === this.#name) return;
    this.#name = name;
    const turn = (this.#turn += 1);
    this.#set(null, null);
    if (!name.trim()) return;
    await wait(PAUSE_MS);
    if (turn === this.#turn) await this.again();
  }

  /** Ask anew: the money has changed, or the person may have joined by now. */
  async again() {
    const turn = (this.#turn += 1);
    const name = this.#name;
    if (!name.trim() || !this.#api.me) return;
    try {
      const user = this.user ?? (await this.#api.findUser(name));
      if (turn === this.#turn && user.id !== this.#api.me.id) await this.#ask(user, turn);
    } catch (refusal) {
      console.debug(`price: ${refusal.code} ${refusal.message}`); // half a name is nobody's
    }
  }

  /** The price for `user`, who is about to be called: what is known, else asked now. Throws a Refusal. */
  async for(user, type) {
    if (this.user?.id !== user.id || !this.prices) await this.#ask(user, (this.#turn += 1));
    return this.prices?.[type] ?? this.of(user, type);
  }

  of(user, type) {
    return this.#api.priceOf(user.id, type);
  }

  forget() {
    this.#turn += 1;
    this.#name = "";
    this.#set(null, null);
  }

  async #ask(user, turn) {
    const [audio, video] = await Promise.all([this.of(user, "audio"), this.of(user, "video")]);
    if (turn === this.#turn) this.#set(user, { audio, video });
  }

  #set(user, prices) {
    Object.assign(this, { user, prices });
    this.dispatchEvent(new Event("change"));
  }
}
