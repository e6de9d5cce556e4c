// From audio to video: the question, its price, and the answer. A leg's `upgrade` says how far it is:
// null, "agreeing" (we pay, and have to say yes to a higher price before we ask), "asked", "offered" (they asked us).
export class Upgrade {
  #link;

  /** `link` = {ask(event, payload), priceOf(userId, type), snapshot(call), note(text, refusal), changed()}. */
  constructor(link) {
    this.#link = link;
  }

  async ask(leg) {
    if (leg.over || leg.type === "video" || leg.upgrade) return;
    try {
      if (leg.role === "caller" && (await this.#dearer(leg))) {
        leg.upgrade = "agreeing";
        this.#link.changed();
      } else if (!leg.over && !leg.upgrade) {
        await this.#send(leg);
      }
    } catch (refusal) {
      this.#refused(leg, refusal);
    }
  }

  async answer(leg, yes) {
    const { upgrade } = leg;
    if (upgrade !== "agreeing" && upgrade !== "offered") return;
    leg.upgrade = null;
    this.#link.changed();
    try {
      if (upgrade === "offered") {
        const event = yes ? "CALL_UPGRADE_ACCEPT" : "CALL_UPGRADE_REJECT";
        const call = await this.#link.ask(event, { callId: leg.id, type: "video" });
        if (call?.id) this.#link.snapshot(call);
      } else if (yes) {
        await this.#send(leg);
      }
    } catch (refusal) {
      this.#refused(leg, refusal);
    }
  }

  heard(leg, event, payload) {
    leg.upgrade = event === "CALL_UPGRADE" ? "offered" : null;
    if (event === "CALL_UPGRADE") leg.upgradePrice = payload.price ?? null;
    if (event === "CALL_UPGRADE_REJECT") this.#link.note("They would rather go on without video.");
    this.#link.changed();
  }

  /** Whether video costs who pays more than the call does now. */
  async #dearer(leg) {
    leg.upgradePrice = (await this.#link.priceOf(leg.other.id, "video")).price;
    if (leg.over || leg.upgrade) return false;
    return leg.upgradePrice.ratePerMinuteMinor > (leg.call?.price.ratePerMinuteMinor ?? 0);
  }

  async #send(leg) {
    const ask = { callId: leg.id, type: "video" };
    // Refused if it is dearer than what was shown. Only who pays has a price to agree to.
    if (leg.role === "caller") ask.maxRatePerMinuteMinor = leg.upgradePrice.ratePerMinuteMinor;
    leg.upgrade = "asked";
    this.#link.changed();
    await this.#link.ask("CALL_UPGRADE", ask);
  }

  #refused(leg, refusal) {
    leg.upgrade = null;
    this.#link.note(refusal.sentence, refusal);
    this.#link.changed();
  }
}
