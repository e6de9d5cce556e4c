// The part of this device in one call: its devices, its RTCPeerConnection and its patience. It knows nothing of the
// protocol's order; phone.js does.
import { openCamera, openMedia, stopMedia } from "./media.js";
import { Peer } from "./peer.js";
import { Gauge } from "./stats.js";
import { wait } from "./util.js";

const QUALITY_MS = 5000;
const STALL_MS = 10_000; // no media for so long: try another path
const DISCONNECTED_MS = 2000; // most interruptions mend themselves sooner
const POLITE_MS = 2500; // the caller moves first, so that the two rarely offer at the same time

export const isLive = (state) => ["accepted", "active", "reconnecting"].includes(state);

export class Leg {
  #link;
  #gauge = new Gauge();

  /** `link` = {hint(event, payload), online(), ice() → config, changed()}: how a leg reaches the rest. */
  constructor(link, { id = null, role, type, other, phase }) {
    this.#link = link;
    // phase is ours: "preparing" (before the ack), "incoming" (rings here), "joining", "joined"; state is the server's
    Object.assign(this, { id, role, type, other, phase, state: "idle", call: null, reason: null, over: false });
    Object.assign(this, { peer: null, stream: null, remote: null, note: "", muted: false, cameraOff: false });
    // What came before it could be used: events before the ack, the caller's offer, candidates without a connection.
    Object.assign(this, { early: [], offer: null, candidates: [] });
    Object.assign(this, { ringsUntil: null, ringsMs: null, theyRing: false, upgrade: null, quality: null });
    // The tariff while there is no snapshot, and the one that goes with a change to video.
    Object.assign(this, { price: null, upgradePrice: null });
    Object.assign(this, { talkedMs: 0, talkSince: null, stalls: 0, timers: [] });
  }

  get seconds() {
    const running = this.talkSince === null ? 0 : performance.now() - this.talkSince;
    return (this.talkedMs + running) / 1000;
  }

  get kinds() {
    return this.type === "video" ? ["audio", "video"] : ["audio"];
  }

  /** The talking time runs while the call is active; the server's own sum, which comes at the end, corrects it. */
  follow(call) {
    // The page was reloaded during the call: its time so far, as far as our clock and the server's agree.
    if (this.state === "idle" && call.activeAt) this.talkedMs = Math.max(0, Date.now() - Date.parse(call.activeAt));
    const active = call.state === "active";
    if (active && this.talkSince === null) {
      this.talkSince = performance.now();
    } else if (!active && this.talkSince !== null) {
      this.talkedMs += performance.now() - this.talkSince;
      this.talkSince = null;
    }
    this.call = call;
    this.state = call.state;
  }

  async openDevices() {
    const { stream, note } = await openMedia(this.type);
    if (this.over) {
      stopMedia(stream);
      return;
    }
    Object.assign(this, { stream, note });
    this.#link.changed();
  }

  /** A new RTCPeerConnection; a former one is closed first, our devices stay open. */
  async openPeer() {
    this.closePeer();
    const config = await this.#link.ice();
    if (this.over) return;
    const peer = new Peer({
      config,
      polite: this.role === "callee",
      stream: this.stream,
      kinds: this.kinds,
      say: {
        description: (description) => this.#link.hint("SESSION_DESCRIPTION", { callId: this.id, description }),
        candidates: (list) => this.#sendCandidates(list),
      },
      seen: {
        remote: (stream) => {
          if (this.over) return;
          this.remote = stream;
          this.#link.changed();
        },
        connection: (state) => this.peer === peer && this.#connection(state),
      },
    });
    this.peer = peer;
    peer.heardCandidates(this.candidates.splice(0));
    if (this.phase === "joined") {
      peer.release();
      this.watch();
    }
  }

  /**
   * Begin the media anew, as after a reload; the other side follows with a new connection of its own. The polite
   * side answers an offer that already waits, because the server would refuse its own.
   */
  async freshStart() {
    const waiting = this.role === "callee" ? this.offer : null;
    this.offer = null;
    await this.openPeer();
    const description = waiting ? await this.peer?.answer(waiting) : await this.peer?.offer();
    if (description && !this.over) this.#link.hint("SESSION_DESCRIPTION", { callId: this.id, description });
  }

  /** A description from the other side, before or during the media. */
  async heard(description) {
    if (!description) return;
    if (!this.peer) {
      if (description.type === "offer") this.offer = description; // the latest one is the one to answer
      return;
    }
    if (!this.peer.isStranger(description)) {
      await this.peer.heard(description);
    } else if (description.type === "offer") {
      await this.openPeer();
      await this.peer?.heard(description);
    } else {
      await this.freshStart(); // they answered our old connection with a new one of theirs
    }
  }

  heardCandidates(list) {
    if (this.peer) this.peer.heardCandidates(list);
    else this.candidates.push(...list);
  }

  /** From the accept on: report the quality, and look whether media still flow. */
  watch() {
    if (this.timers.length || this.over) return;
    const nudge = () => {
      if (!this.#link.online() || this.peer?.state === "connected" || !isLive(this.state)) return;
      this.stalls += 1;
      if (this.role === "caller" || this.stalls % 2 === 0) this.peer?.restart();
    };
    this.timers = [setInterval(() => this.#measure(), QUALITY_MS), setInterval(nudge, STALL_MS)];
  }

  mute(on) {
    this.muted = on;
    for (const track of this.stream?.getAudioTracks() ?? []) track.enabled = !on;
    this.#link.changed();
  }

  hideCamera(on) {
    this.cameraOff = on;
    this.peer?.showVideo(!on);
    this.#link.changed();
  }

  async becomeVideo() {
    if (this.type === "video") return;
    this.type = "video";
    this.upgrade = null;
    this.#link.changed();
    const track = await openCamera();
    if (this.over) {
      track?.stop();
      return;
    }
    if (!track) this.note = "No camera here: you take part without.";
    this.peer?.addVideo(track);
    this.#link.changed();
  }

  close() {
    this.talkedMs = this.seconds * 1000;
    this.talkSince = null;
    this.over = true;
    this.timers.splice(0).forEach(clearInterval);
    this.closePeer();
    stopMedia(this.stream);
    this.stream = null;
  }

  closePeer() {
    this.peer?.close();
    this.peer = null;
    this.remote = null;
  }

  async #connection(state) {
    const { peer } = this;
    this.#link.changed();
    if (state === "connected") {
      this.stalls = 0;
      this.#gauge = new Gauge();
      this.#measure(); // the reading that the first report compares with
      this.#link.hint("CALL_CONNECTED", { callId: this.id });
    }
    if (state !== "failed" && state !== "disconnected") return;
    await wait((state === "failed" ? 0 : DISCONNECTED_MS) + (peer.polite ? POLITE_MS : 0));
    if (this.peer === peer && ["failed", "disconnected"].includes(peer.state)) await peer.restart();
  }

  async #measure() {
    if (this.peer?.state !== "connected") return;
    const stats = await this.#gauge.read(this.peer.connection).catch(() => null);
    if (!stats || this.over) return;
    this.quality = stats;
    this.#link.hint("CALL_QUALITY", { callId: this.id, stats });
    this.#link.changed();
  }

  #sendCandidates(list) {
    const candidates = list.filter(Boolean);
    if (candidates.length) this.#link.hint("ICE_CANDIDATE", { callId: this.id, candidates });
    if (candidates.length < list.length) this.#link.hint("ICE_CANDIDATE", { callId: this.id, candidate: null });
  }
}
