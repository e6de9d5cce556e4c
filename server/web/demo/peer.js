// One RTCPeerConnection with "perfect negotiation": either side may offer at any time. When two offers cross, the
// polite side (the callee) takes its own back and the impolite side (the caller) ignores the other's.
//
// Everything that touches descriptions runs in one chain, one step after the other, so no step sees half of another.
import { wait } from "./util.js";

const BATCH_MS = 120; // candidates that come close together travel together
const BATCH_MAX = 25;

/** The DTLS identity in a description: another one means another RTCPeerConnection, as after a page reload. */
const fingerprintOf = (sdp) => /^a=fingerprint:(.+)$/m.exec(sdp ?? "")?.[1].trim();

export class Peer {
  #chain = Promise.resolve();
  #open = false; // until the server knows the call, what we have to say is kept
  #started = false; // after the first exchange, `negotiationneeded` may offer on its own
  #outgoing = [];
  #outgoingTimer = null;
  #incoming = [];
  #ignoring = false;
  #closed = false;

  /**
   * `say` = {description(d), candidates(list)} sends; `seen` = {remote(stream), connection(state)} is told.
   * `kinds` are the media of the call, `stream` our own tracks (may lack some or all).
   */
  constructor({ config, polite, stream, kinds, say, seen }) {
    this.polite = polite;
    this.kinds = kinds;
    this.stream = stream;
    this.say = say;
    this.remote = new MediaStream();
    this.connection = new RTCPeerConnection(config);
    this.connection.onicecandidate = ({ candidate }) => this.#collect(candidate);
    this.connection.onnegotiationneeded = () => this.#started && this.#offerAgain();
    this.connection.onconnectionstatechange = () => seen.connection(this.connection.connectionState);
    this.connection.ontrack = ({ track }) => {
      for (const old of this.remote.getTracks()) if (old.kind === track.kind) this.remote.removeTrack(old);
      this.remote.addTrack(track);
      seen.remote(this.remote);
    };
    // Directions are settled now: the other camera may have come or gone.
    this.connection.onsignalingstatechange = () => {
      if (this.connection.signalingState === "stable") seen.remote(this.remote);
    };
  }

  get state() {
    return this.connection.connectionState;
  }

  /** The other side sends video, by what was negotiated; a track's `muted` lags behind and survives a rollback wrongly. */
  get receivesVideo() {
    return this.connection
      .getTransceivers()
      .some((one) => one.receiver.track.kind === "video" && ["sendrecv", "recvonly"].includes(one.currentDirection));
  }

  /** The first offer, for CALL_REQUEST or a fresh start. What we have no device for, we still want to receive. */
  offer() {
    return this.#next(async () => {
      for (const kind of this.kinds) {
        const track = this.stream.getTracks().find((one) => one.kind === kind);
        if (track) this.connection.addTrack(track, this.stream);
        else this.connection.addTransceiver(kind, { direction: "recvonly" });
      }
      await this.connection.setLocalDescription();
      return this.#local();
    });
  }

  /** The answer to a first offer, for CALL_ACCEPT. */
  answer(description) {
    return this.#next(async () => {
      this.#lendTracks();
      await this.connection.setRemoteDescription(description);
      await this.#useWaiting();
      await this.connection.setLocalDescription();
      this.#started = true;
      return this.#local();
    });
  }

  /** The server knows the call: send what has gathered. */
  release() {
    this.#open = true;
    this.#flush();
  }

  /** A description from the other side, at any time. */
  heard(description) {
    return this.#later(async () => {
      const { connection } = this;
      if (description.type === "answer") {
        if (connection.signalingState !== "have-local-offer") return; // the answer to an offer we took back
        await connection.setRemoteDescription(description);
        this.#started = true;
        await this.#useWaiting();
        return;
      }
      const crossed = connection.signalingState !== "stable";
      this.#ignoring = crossed && !this.polite;
      if (this.#ignoring) return;
      if (!this.#started) this.#lendTracks();
      await connection.setRemoteDescription(description); // takes a crossed offer of ours back by itself
      await this.#useWaiting();
      await connection.setLocalDescription();
      this.#started = true;
      this.say.description(this.#local());
    });
  }

  /** Candidates from the other side; early ones wait for the description they belong to. */
  heardCandidates(list) {
    return this.#later(async () => {
      this.#incoming.push(...list);
      if (this.connection.remoteDescription) await this.#useWaiting();
    });
  }

  /** True when this comes from another RTCPeerConnection than the one we talk to: then we need a new one too. */
  isStranger({ type, sdp }) {
    const known = fingerprintOf(this.connection.remoteDescription?.sdp);
    if (!known || known === fingerprintOf(sdp)) return false;
    return type === "offer" || this.connection.signalingState === "have-local-offer";
  }

  /** Look for a new path (RFC 8445 restart): a new offer, in place of one that nobody answered. */
  restart() {
    return this.#later(async () => {
      if (!["stable", "have-local-offer"].includes(this.connection.signalingState)) return;
      await this.connection.setLocalDescription(await this.connection.createOffer({ iceRestart: true }));
      this.say.description(this.#local());
    });
  }

  /** Say an offer again that the accept did not answer, unless the answer came meanwhile. */
  async repeatOffer(afterMs) {
    await wait(afterMs);
    return this.#later(async () => {
      if (this.connection.signalingState === "have-local-offer") this.say.description(this.#local());
    });
  }

  /** Our camera from now on (a call that becomes a video call): the browser asks for a new negotiation. */
  addVideo(track) {
    if (!this.kinds.includes("video")) this.kinds.push("video");
    if (!track) return;
    this.stream.addTrack(track);
    if (this.#started) this.connection.addTrack(track, this.stream);
  }

  /** Stop or go on sending the camera; the other side sees the track mute, so it shows a face instead of black. */
  showVideo(on) {
    for (const track of this.stream.getVideoTracks()) track.enabled = on;
    for (const one of this.connection.getTransceivers()) {
      if (one.sender.track?.kind === "video" && !one.stopped) one.direction = on ? "sendrecv" : "recvonly";
    }
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#outgoingTimer);
    this.connection.onicecandidate = this.connection.ontrack = null;
    this.connection.onnegotiationneeded = this.connection.onconnectionstatechange = null;
    this.connection.onsignalingstatechange = null;
    this.connection.close();
  }

  /** One step after the other; what it throws, the caller gets. */
  #next(step) {
    const run = this.#chain.then(() => (this.#closed ? undefined : step()));
    this.#chain = run.catch(() => {});
    return run;
  }

  /** A step whose failure is mended later, by a restart: it is only logged. */
  #later(step) {
    return this.#next(step).catch((error) => {
      if (!this.#closed) console.warn(`peer: ${error.message}`);
    });
  }

  #offerAgain() {
    return this.#later(async () => {
      if (this.connection.signalingState !== "stable") return;
      await this.connection.setLocalDescription();
      this.say.description(this.#local());
    });
  }

  /** Our tracks, for an offer of the other side to pick up: no transceivers of our own, or they would not match. */
  #lendTracks() {
    const sending = new Set(this.connection.getSenders().map((sender) => sender.track));
    for (const track of this.stream.getTracks()) {
      if (!sending.has(track) && this.kinds.includes(track.kind)) this.connection.addTrack(track, this.stream);
    }
  }

  #local() {
    const { type, sdp } = this.connection.localDescription;
    return { type, sdp };
  }

  #collect(candidate) {
    this.#outgoing.push(candidate ? candidate.toJSON() : null);
    if (!candidate) this.#flush();
    else this.#outgoingTimer ??= setTimeout(() => this.#flush(), BATCH_MS);
  }

  #flush() {
    clearTimeout(this.#outgoingTimer);
    this.#outgoingTimer = null;
    if (!this.#open) return;
    while (this.#outgoing.length) this.say.candidates(this.#outgoing.splice(0, BATCH_MAX));
  }

  async #useWaiting() {
    for (const candidate of this.#incoming.splice(0)) {
      try {
        // null and "" say "no more": nothing to add, the browser finds out by itself
        if (candidate?.candidate) await this.connection.addIceCandidate(candidate);
      } catch (error) {
        // of an older generation, or of an offer that we ignored: harmless
        if (!this.#ignoring) console.debug(`candidate: ${error.message}`);
      }
    }
  }
}
