// The call of this tab, from dial to the end. The server owns the truth: a leg's `state` is only ever what a snapshot
// said, and an older `version` is ignored. What this module adds is the order of things.
//
// Events of this object: `change` (draw), `over` (a call has ended), `note` (detail: {text, refusal?}).
import { Leg, isLive } from "./leg.js";
import { Upgrade } from "./upgrade.js";
import { Refusal, memory, uuid } from "./util.js";

const LATE_ANSWER_MS = 1500; // accepted, but no answer to our offer: say the offer again
const REPEAT = { tries: 3 }; // a call's own transitions are safe to repeat
const UNHEARD = new Set(["NO_ANSWER", "OFFLINE"]); // the server may not know of it yet

export class Phone extends EventTarget {
  #api;
  #signaling;
  #versions = new Map();
  #link;
  #upgrade;

  /** The call on the screen: live, or the last one that ended; null before any. */
  leg = null;

  constructor({ api, signaling }) {
    super();
    this.#api = api;
    this.#signaling = signaling;
    this.#link = {
      hint: (event, payload) => signaling.hint(event, payload),
      online: () => signaling.online,
      ice: () => api.iceConfig(),
      changed: () => this.#changed(),
    };
    this.#upgrade = new Upgrade({
      ask: (event, payload) => signaling.ask(event, payload, REPEAT),
      priceOf: (userId, type) => api.priceOf(userId, type),
      snapshot: (call) => this.#snapshot(call),
      note: (text, refusal) => this.#note(text, refusal),
      changed: () => this.#changed(),
    });
    signaling.addEventListener("sync", ({ detail }) => this.#synced(detail.calls ?? []));
    signaling.addEventListener("told", ({ detail }) => this.#told(detail.event, detail.payload));
  }

  get state() {
    return this.leg?.state ?? "idle";
  }

  get busy() {
    return Boolean(this.leg && !this.leg.over);
  }

  // ---- what the person does -------------------------------------------------------------------------------------

  /** Call somebody at the price that has been shown; the server refuses if it is higher by now. */
  async dial(other, type, price) {
    if (this.busy) return;
    const leg = this.#begin(new Leg(this.#link, { role: "caller", type, other, phase: "preparing" }));
    leg.price = price;
    try {
      await leg.openDevices();
      if (leg.over) return;
      await leg.openPeer();
      const offer = await leg.peer?.offer();
      if (leg.over) return;
      const agreed = { maxRatePerMinuteMinor: price.ratePerMinuteMinor };
      const ask = { to: other.id, type, offer, reportsMedia: true, opId: uuid(), ...agreed };
      const call = await this.#signaling.ask("CALL_REQUEST", ask, { tries: 2 });
      if (leg.over) {
        this.#signaling.hint("CALL_ENDED", { callId: call.id }); // hung up while we asked
        return;
      }
      this.#placed(leg, call);
    } catch (refusal) {
      this.#fail(leg, refusal);
    }
  }

  async accept() {
    const leg = this.leg;
    if (leg?.phase !== "incoming" || leg.over) return;
    leg.phase = "joining";
    this.#changed();
    try {
      await leg.openDevices();
      if (leg.over) return;
      await leg.openPeer();
      // An offer may have come while the camera opened; without any, the caller's follows as a description.
      const answer = leg.offer ? await leg.peer?.answer(leg.offer) : undefined;
      if (leg.over) return;
      leg.offer = null;
      const ask = { callId: leg.id, answer, reportsMedia: true };
      const call = await this.#signaling.ask("CALL_ACCEPT", ask, REPEAT);
      if (leg.over) return;
      this.#joined(leg, call);
    } catch (refusal) {
      this.#fail(leg, refusal);
    }
  }

  async reject() {
    const leg = this.leg;
    if (leg?.phase !== "incoming" || leg.over) return;
    this.#finish(leg, { reason: "declined" });
    await this.#tellEnd("CALL_REJECT", { callId: leg.id, reason: "declined" });
  }

  /** Hang up, cancel, or give up before the call exists. The screen does not wait for the network. */
  async hangup() {
    const leg = this.leg;
    if (!leg || leg.over) return;
    const reason = isLive(leg.state) ? "completed" : "cancelled";
    this.#finish(leg, { reason });
    if (leg.id) await this.#tellEnd("CALL_ENDED", { callId: leg.id });
  }

  toggleMute() {
    const leg = this.leg;
    if (leg?.stream) leg.mute(!leg.muted);
  }

  toggleCamera() {
    if (this.leg?.stream?.getVideoTracks().length) this.leg.hideCamera(!this.leg.cameraOff);
  }

  async askForVideo() {
    if (this.leg) await this.#upgrade.ask(this.leg);
  }

  async answerUpgrade(yes) {
    if (this.leg) await this.#upgrade.answer(this.leg, yes);
  }

  /** Signed out: drop everything at once. */
  drop() {
    if (this.busy) {
      if (this.leg.id) this.#signaling.hint("CALL_ENDED", { callId: this.leg.id });
      this.#finish(this.leg, { reason: "completed" });
    }
    this.leg = null;
    this.#versions.clear();
    this.#changed();
  }

  // ---- what the server says -------------------------------------------------------------------------------------

  #told(event, payload) {
    const leg = this.leg;
    const callId = payload.callId ?? payload.call?.id;
    // While we ask for a call, its id is not known yet, and its first events may overtake the ack.
    if (leg && !leg.over && !leg.id && callId) {
      leg.early.push([event, payload]);
      return;
    }
    if (event === "CALL_REQUEST") return this.#rung(payload);
    if (payload.call && !this.#isNews(payload.call)) delete payload.call;
    if (!leg || leg.over || leg.id !== callId) return undefined;
    if (payload.call) this.#snapshot(payload.call, { checked: true });
    if (leg.over) return undefined;
    return this.#heard(leg, event, payload);
  }

  #heard(leg, event, payload) {
    switch (event) {
      case "CALL_RINGING":
        leg.theyRing = true;
        return this.#changed();
      case "CALL_ACCEPT":
        return this.#accepted(leg, payload.answer);
      case "SESSION_DESCRIPTION":
        return leg.heard(payload.description);
      case "ICE_CANDIDATE":
        return leg.heardCandidates(payload.candidates ?? [payload.candidate]);
      case "CALL_ANSWERED_ELSEWHERE":
        if (leg.phase === "joined") return undefined;
        return this.#finish(leg, { reason: payload.by === "reject" ? "declined" : "answered_elsewhere" });
      case "CALL_REJECT":
      case "CALL_BUSY":
      case "CALL_TIMEOUT":
      case "CALL_ENDED":
        return this.#finish(leg, payload);
      case "CALL_UPDATED":
        // The server sees no media though both are there: one side looks for a new path.
        return payload.restartIce && leg.role === "caller" ? leg.peer?.restart() : undefined;
      case "CALL_UPGRADE":
      case "CALL_UPGRADE_REJECT":
      case "CALL_UPGRADE_ACCEPT":
        this.#upgrade.heard(leg, event, payload);
        return event === "CALL_UPGRADE_ACCEPT" ? leg.becomeVideo() : undefined;
      default:
        return undefined;
    }
  }

  #rung({ callId, from, type, offer, expiresInMs, version, price }) {
    const leg = this.leg;
    const ringsUntil = Number.isFinite(expiresInMs) ? performance.now() + expiresInMs : null;
    if (leg?.id === callId) {
      // Told again (a replay, another connect), or both called at once and the server made one call of two.
      if (leg.over) return;
      if (ringsUntil) Object.assign(leg, { ringsUntil, ringsMs: leg.ringsMs ?? expiresInMs });
      if (offer && leg.peer && leg.role === "callee") leg.heard(offer);
      else leg.offer ??= offer ?? null;
      this.#changed();
      return;
    }
    if (!this.#isNews({ id: callId, version })) return; // it has already ended, in the same replay
    if (this.busy) {
      this.#signaling.hint("CALL_BUSY", { callId });
      return;
    }
    const facts = { id: callId, role: "callee", type, other: from, phase: "incoming" };
    const ringing = { state: "ringing", offer: offer ?? null, ringsUntil, ringsMs: expiresInMs, price: price ?? null };
    this.#begin(Object.assign(new Leg(this.#link, facts), ringing));
    this.#signaling.hint("CALL_RINGING", { callId });
    this.#changed();
  }

  async #accepted(leg, answer) {
    leg.watch();
    if (!leg.peer) {
      await leg.freshStart(); // we were reloaded while it rang: the answer is to an offer that is gone
      return;
    }
    if (answer) await leg.peer.heard(answer);
    else leg.peer.repeatOffer(LATE_ANSWER_MS);
  }

  /** True when this snapshot is not older than what we know of its call; it is then what we know. */
  #isNews({ id, version = 0 }) {
    if ((this.#versions.get(id) ?? -1) > version) return false;
    this.#versions.set(id, version);
    return true;
  }

  #snapshot(call, { checked = false } = {}) {
    if (!checked && !this.#isNews(call)) return;
    const leg = this.leg;
    if (!leg || leg.id !== call.id || leg.over) return;
    if (call.state === "ended") {
      this.#finish(leg, { reason: call.endReason, call });
      return;
    }
    leg.follow(call);
    if (call.type === "video" && leg.type === "audio") leg.becomeVideo();
    this.#changed();
  }

  // ---- after a connect ------------------------------------------------------------------------------------------

  async #synced(calls) {
    const leg = this.leg;
    // First of all, so that what is replayed next (a ring and its hang-up, say) is known to be old.
    for (const call of calls) this.#isNews(call);
    const byId = new Map(calls.map((call) => [call.id, call]));
    this.#finishEarlierEnd(byId);
    if (leg && !leg.over) {
      if (leg.id) await this.#takeUp(leg, byId.get(leg.id));
    } else {
      const mine = calls.filter((call) => call.state !== "ended" && call.id !== leg?.id);
      const kept = mine.find((call) => call.id === memory.get("call"));
      const rings = mine.find((call) => call.state === "ringing" && call.callee?.id === this.#api.me.id);
      if (kept) await this.#returnTo(kept);
      else if (rings) this.#rung({ ...rings, callId: rings.id, from: rings.caller });
    }
  }

  /** The socket was away while a call of this page went on. */
  async #takeUp(leg, call) {
    const known = call ?? (await this.#api.callById(leg.id).catch(() => null));
    if (known) this.#snapshot(known);
    if (leg.over || leg.phase !== "joined") return;
    try {
      this.#snapshot(await this.#signaling.ask("CALL_RESUME", { callId: leg.id }, REPEAT));
    } catch (refusal) {
      if (UNHEARD.has(refusal.code)) return; // the next connect tries again
      if (!leg.over && leg.state !== "ringing") this.#fail(leg, refusal);
      return;
    }
    if (leg.over || !isLive(leg.state)) return;
    if (leg.peer?.state === "connected") this.#signaling.hint("CALL_CONNECTED", { callId: leg.id });
    else if (leg.peer) await leg.peer.restart();
    else await leg.freshStart();
  }

  /** The page was reloaded in the middle of a call: its media are gone, its place in the call is not. */
  async #returnTo(call) {
    const role = call.caller?.id === this.#api.me.id ? "caller" : "callee";
    const other = role === "caller" ? call.callee : call.caller;
    const leg = this.#begin(new Leg(this.#link, { id: call.id, role, type: call.type, other, phase: "joined" }));
    this.#snapshot(call);
    await leg.openDevices();
    if (!leg.over) await this.#takeUp(leg, call);
  }

  /** A hang-up that the network swallowed. */
  #finishEarlierEnd(byId) {
    const owed = memory.get("owed");
    if (owed && byId.get(owed.payload.callId)?.state !== "ended") this.#tellEnd(owed.event, owed.payload);
    else memory.set("owed", null);
  }

  async #tellEnd(event, payload) {
    memory.set("owed", { event, payload });
    try {
      const call = await this.#signaling.ask(event, payload, REPEAT);
      if (call?.id) this.#corrected(call);
      memory.set("owed", null);
    } catch (refusal) {
      if (!UNHEARD.has(refusal.code)) memory.set("owed", null);
      console.debug(`${event}: ${refusal.code} ${refusal.message}`);
    }
    this.dispatchEvent(new CustomEvent("over", { detail: this.leg }));
  }

  /** How the server saw the end: it may have been another one than we thought. */
  #corrected(call) {
    this.#isNews(call);
    if (this.leg?.id !== call.id) return;
    this.leg.call = call;
    this.leg.reason = call.endReason ?? this.leg.reason;
    this.#changed();
  }

  // ---- the life of a leg ----------------------------------------------------------------------------------------

  #begin(leg) {
    this.leg = leg;
    this.#changed();
    return leg;
  }

  #placed(leg, call) {
    leg.id = call.id;
    const merged = call.caller?.id !== this.#api.me.id; // we called each other at once: theirs is the call
    if (merged) {
      leg.role = "callee";
      if (leg.peer) leg.peer.polite = true;
    }
    leg.phase = merged && call.state === "ringing" ? "incoming" : "joined";
    if (leg.phase === "joined") memory.set("call", leg.id);
    else leg.closePeer(); // it still has to be answered
    this.#snapshot(call);
    leg.peer?.release();
    if (isLive(leg.state)) leg.watch();
    for (const [event, payload] of leg.early.splice(0)) this.#told(event, payload);
  }

  #joined(leg, call) {
    leg.phase = "joined";
    memory.set("call", leg.id);
    this.#snapshot(call);
    leg.peer?.release();
    leg.watch();
  }

  #fail(leg, refusal) {
    if (leg.over) return;
    const told = refusal instanceof Refusal ? refusal.sentence : "The call could not be set up.";
    if (!(refusal instanceof Refusal)) console.error(refusal);
    const waiting = leg.early.splice(0);
    const known = refusal instanceof Refusal && !UNHEARD.has(refusal.code);
    if (leg.id) {
      this.#finish(leg, { reason: refusal.code?.toLowerCase() ?? "connect_failed" });
      if (!known) this.#tellEnd("CALL_ENDED", { callId: leg.id }); // the server still thinks that we are in it
    } else {
      this.#release(leg);
      this.leg = null;
    }
    this.#note(told, refusal);
    this.#changed();
    // Somebody else's call may have rung while ours was refused.
    for (const [event, payload] of waiting) this.#told(event, payload);
  }

  #finish(leg, { reason, call, durationSeconds }) {
    if (leg.over) return;
    if (call) leg.call = call;
    const seconds = call?.durationSeconds ?? durationSeconds;
    this.#release(leg);
    if (Number.isFinite(seconds)) leg.talkedMs = seconds * 1000;
    leg.state = leg.id ? "ended" : "idle";
    leg.reason = reason ?? call?.endReason ?? leg.call?.endReason ?? "completed";
    this.dispatchEvent(new CustomEvent("over", { detail: leg }));
    this.#changed();
  }

  #release(leg) {
    leg.close();
    if (memory.get("call") === leg.id) memory.set("call", null);
  }

  #note(text, refusal) {
    this.dispatchEvent(new CustomEvent("note", { detail: { text, refusal } }));
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
