// Everybody in a room to everybody else: one Peer for each of the others, and the patience to mend what breaks.
//
// Who comes in offers to all who are there. Later both sides may offer: the one with the smaller id is the polite one,
// so the two agree on that without a word. A description from an unknown RTCPeerConnection means that the other page
// was loaded anew; it gets a new connection here, too.
import { Peer } from "./peer.js";
import { wait } from "./util.js";

const TICK_MS = 4000;
const IMPATIENT_TICKS = 2; // without media for so long: look for another path; the polite side waits one longer
const DISCONNECTED_MS = 2000; // most interruptions mend themselves sooner
const POLITE_MS = 2500;
const EARLY_MAX = 64; // candidates that overtook their offer

export class Mesh {
  #link;
  #peers = new Map(); // the others' ids → Peer
  #early = new Map(); // the others' ids → candidates that came before there was a Peer
  #idle = new Map(); // the others' ids → ticks without media
  #timer;

  /**
   * `link` = {say(event, userId, payload), online(), changed()}; `kinds` are the media of the room, `stream` our own
   * tracks (may lack some or all), `config` is for RTCPeerConnection.
   */
  constructor(link, { me, stream, kinds, config }) {
    this.#link = link;
    Object.assign(this, { me, stream, kinds, config, cameraOff: false });
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
  }

  /** The connection to one of the others, or undefined. */
  with(userId) {
    return this.#peers.get(userId);
  }

  /** Somebody is there: offer, or look for a new path where the one we had is not up. */
  async greet(userId) {
    const peer = this.#peers.get(userId);
    this.#idle.set(userId, 0);
    if (!peer) await this.#offer(userId);
    else if (peer.state !== "connected") await peer.restart();
  }

  /** Somebody has come in, and will offer. */
  expect(userId) {
    this.#idle.set(userId, 0);
  }

  async heardDescription(userId, description) {
    const peer = this.#peers.get(userId);
    if (peer && !peer.isStranger(description)) {
      await peer.heard(description);
    } else if (description.type === "offer") {
      const fresh = this.#open(userId);
      fresh.release();
      await fresh.heard(description);
    } else if (peer) {
      await this.#offer(userId); // their answer to our old connection comes from a new one of theirs
    }
  }

  heardCandidate(userId, candidate) {
    const peer = this.#peers.get(userId);
    if (peer) {
      peer.heardCandidates([candidate]);
      return;
    }
    const waiting = this.#early.get(userId) ?? [];
    if (waiting.length < EARLY_MAX) waiting.push(candidate);
    this.#early.set(userId, waiting);
  }

  drop(userId) {
    this.#peers.get(userId)?.close();
    for (const kept of [this.#peers, this.#early, this.#idle]) kept.delete(userId);
  }

  mute(on) {
    for (const track of this.stream.getAudioTracks()) track.enabled = !on;
  }

  hideCamera(on) {
    this.cameraOff = on;
    for (const track of this.stream.getVideoTracks()) track.enabled = !on;
    for (const peer of this.#peers.values()) peer.showVideo(!on);
  }

  close() {
    clearInterval(this.#timer);
    for (const userId of [...this.#peers.keys()]) this.drop(userId);
  }

  async #offer(userId) {
    const peer = this.#open(userId);
    const description = await peer.offer();
    if (!description || this.#peers.get(userId) !== peer) return;
    this.#link.say("offer", userId, { offer: description });
    peer.release();
  }

  #open(userId) {
    this.#peers.get(userId)?.close();
    const peer = new Peer({
      config: this.config,
      polite: this.me < userId,
      stream: this.stream,
      kinds: [...this.kinds],
      say: {
        description: (description) => this.#link.say(description.type, userId, { [description.type]: description }),
        candidates: (list) => {
          for (const candidate of list) if (candidate) this.#link.say("ice-candidate", userId, { candidate });
        },
      },
      seen: {
        remote: () => this.#link.changed(),
        connection: () => this.#connection(userId, peer),
      },
    });
    this.#peers.set(userId, peer);
    peer.heardCandidates(this.#early.get(userId) ?? []);
    this.#early.delete(userId);
    return peer;
  }

  async #connection(userId, peer) {
    this.#link.changed();
    if (peer.state === "connected" && this.cameraOff) peer.showVideo(false);
    const broken = () => this.#peers.get(userId) === peer && ["failed", "disconnected"].includes(peer.state);
    if (!broken()) return;
    await wait((peer.state === "failed" ? 0 : DISCONNECTED_MS) + (peer.polite ? POLITE_MS : 0));
    if (broken()) await peer.restart();
  }

  /** An offer or an answer that was lost leaves nothing that would report it: look now and then. */
  #tick() {
    for (const [userId, ticks] of this.#idle) {
      const up = this.#peers.get(userId)?.state === "connected";
      const patience = IMPATIENT_TICKS + (this.me < userId ? 1 : 0);
      this.#idle.set(userId, up ? 0 : ticks + 1);
      if (!up && ticks >= patience && this.#link.online()) this.greet(userId);
    }
  }
}
