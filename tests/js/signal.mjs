// A device of an app that writes end-to-end encrypted, for the door tests: Signal's own library, the official
// socket.io-client and fetch, driven line by line as phone.mjs is. One process is one device; its secrets stay in it.
//
//   in:  {"id": 1, "do": "begin", "url": "http://…", "token": "…", "userId": "…", "deviceId": "phone"}
//        {"id": 2, "do": "send", "to": "…", "text": "Good morning", "opId": "1"}
//   out: {"id": 2, "value": …} or {"id": 2, "error": "…"}, and for each message that this device could read
//        {"event": "read", "from": "…", "text": "…", "type": 3}
//
// It ends when its standard input does.
import { createInterface } from "node:readline";
import * as signal from "@signalapp/libsignal-client";
import { io } from "socket.io-client";

const WITHIN_MS = 20_000;
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const base64 = (bytes) => Buffer.from(bytes).toString("base64");
const bytes = (text) => Uint8Array.from(Buffer.from(text, "base64"));

// What the library asks a store for, kept in memory.
const kept = () => new Map();

class Identities extends signal.IdentityKeyStore {
  constructor(privateKey, registrationId) {
    super();
    Object.assign(this, { privateKey, registrationId, known: kept() });
  }
  getIdentityKey = async () => this.privateKey;
  getLocalRegistrationId = async () => this.registrationId;
  getIdentity = async (address) => this.known.get(address.toString()) ?? null;
  isTrustedIdentity = async (address, key) => {
    const known = this.known.get(address.toString());
    return !known || base64(known.serialize()) === base64(key.serialize());
  };
  saveIdentity = async (address, key) => {
    this.known.set(address.toString(), key);
    return signal.IdentityChange.NewOrUnchanged;
  };
}

class Sessions extends signal.SessionStore {
  kept = kept();
  saveSession = async (address, record) => void this.kept.set(address.toString(), record);
  getSession = async (address) => this.kept.get(address.toString()) ?? null;
  getExistingSessions = async (addresses) => addresses.map((one) => this.kept.get(one.toString()));
}

class Prekeys extends signal.PreKeyStore {
  kept = kept();
  savePreKey = async (id, record) => void this.kept.set(id, record);
  getPreKey = async (id) => this.kept.get(id);
  removePreKey = async (id) => void this.kept.delete(id);
}

class SignedPrekeys extends signal.SignedPreKeyStore {
  kept = kept();
  saveSignedPreKey = async (id, record) => void this.kept.set(id, record);
  getSignedPreKey = async (id) => this.kept.get(id);
}

class KemPrekeys extends signal.KyberPreKeyStore {
  kept = kept();
  saveKyberPreKey = async (id, record) => void this.kept.set(id, record);
  getKyberPreKey = async (id) => this.kept.get(id);
  markKyberPreKeyUsed = async () => {};
}

let me;

// Devices have names here and numbers in the library: the name goes into the address, the number is always 1.
const addressOf = (userId, deviceId) => signal.ProtocolAddress.new(`${userId}/${deviceId}`, 1);

async function rest(method, path, body) {
  const answer = await fetch(me.url + path, {
    method,
    headers: { authorization: `Bearer ${me.token}`, "content-type": "application/json", "x-device-id": me.deviceId },
    body: body && JSON.stringify(body),
  });
  const said = answer.status === 204 ? {} : await answer.json();
  if (!answer.ok) throw Object.assign(new Error(said.error.code), { refusal: said.error });
  return said;
}

// ------------------------------------------------------------------------------------------------------ one's own keys

function makeEc(id) {
  const key = signal.PrivateKey.generate();
  me.prekeys.kept.set(id, signal.PreKeyRecord.new(id, key.getPublicKey(), key));
  return { id, key: base64(key.getPublicKey().serialize()) };
}

function makeSigned(id) {
  const key = signal.PrivateKey.generate();
  const signature = me.identity.sign(key.getPublicKey().serialize());
  me.signed.kept.set(id, signal.SignedPreKeyRecord.new(id, Date.now(), key.getPublicKey(), key, signature));
  return { id, key: base64(key.getPublicKey().serialize()), signature: base64(signature) };
}

function makeKem(id) {
  const pair = signal.KEMKeyPair.generate();
  const signature = me.identity.sign(pair.getPublicKey().serialize());
  me.kem.kept.set(id, signal.KyberPreKeyRecord.new(id, Date.now(), pair, signature));
  return { id, key: base64(pair.getPublicKey().serialize()), signature: base64(signature) };
}

async function begin({ url, token, userId, deviceId, oneTime = 5 }) {
  const identity = signal.PrivateKey.generate();
  me = { url, token, userId, deviceId, identity, devices: new Map() };
  me.identities = new Identities(identity, 1 + Math.floor(Math.random() * 16380));
  Object.assign(me, { sessions: new Sessions(), prekeys: new Prekeys(), signed: new SignedPrekeys(), kem: new KemPrekeys() });
  const numbers = Array.from({ length: oneTime }, (_, n) => n + 1);
  await rest("PUT", "/api/keys", {
    identityKey: base64(identity.getPublicKey().serialize()),
    registrationId: me.identities.registrationId,
    signedPreKey: makeSigned(1),
    preKeys: numbers.map(makeEc),
    kemPreKeys: numbers.map(makeKem),
    lastResortKemPreKey: makeKem(1000),
  });
  await dial(url);
}

// The app's socket; it comes back by itself and says how far it has got.
async function dial(url) {
  me.socket?.disconnect();
  let since = me.since;
  me.url = url;
  me.socket = io(url, {
    transports: ["websocket"],
    reconnectionDelay: 100,
    auth: (give) => give({ token: me.token, deviceId: me.deviceId, since }),
  });
  me.socket.on("CHAT_MESSAGE", (message) => {
    since = me.since = message.logSeq ?? since;
    me.reading = (me.reading ?? Promise.resolve()).then(() => read(message));
  });
  me.socket.on("SYNC", ({ seq }) => {
    since ??= seq;
  });
  await new Promise((done, fail) => {
    me.socket.once("SYNC", done);
    me.socket.once("connect_error", fail);
  });
}

// ----------------------------------------------------------------------------------------------------------- messages

async function claim(userId, deviceId) {
  const { devices } = await rest("POST", "/api/keys/claim", { userId, deviceId });
  for (const one of devices) {
    const bundle = signal.PreKeyBundle.new(
      one.registrationId,
      1,
      one.preKey?.id ?? null,
      one.preKey && signal.PublicKey.deserialize(bytes(one.preKey.key)),
      one.signedPreKey.id,
      signal.PublicKey.deserialize(bytes(one.signedPreKey.key)),
      bytes(one.signedPreKey.signature),
      signal.PublicKey.deserialize(bytes(one.identityKey)),
      one.kemPreKey.id,
      signal.KEMPublicKey.deserialize(bytes(one.kemPreKey.key)),
      bytes(one.kemPreKey.signature),
    );
    // The library checks the signatures once more: the server is not believed.
    await signal.processPreKeyBundle(bundle, addressOf(userId, one.deviceId), me.sessions, me.identities);
    know(userId, one.deviceId);
  }
  return devices;
}

const know = (userId, deviceId) => me.devices.set(`${userId}/${deviceId}`, { userId, deviceId });

async function encryptedFor({ userId, deviceId }, text) {
  const address = addressOf(userId, deviceId);
  const body = await signal.signalEncrypt(Uint8Array.from(Buffer.from(text)), address, me.sessions, me.identities);
  return { userId, deviceId, type: body.type(), body: base64(body.serialize()) };
}

// The devices are the server's to name: a message for too few or too many of them is refused, and said again.
async function send({ to, text, opId }) {
  const claimed = [];
  for (let tries = 0; tries < 3; tries += 1) {
    const targets = [...me.devices.values()].filter(({ userId }) => userId === to || userId === me.userId);
    if (targets.length === 0) {
      claimed.push(...(await claim(to)));
      continue;
    }
    const ciphertexts = [];
    for (const target of targets) ciphertexts.push(await encryptedFor(target, text));
    const ack = await me.socket.timeout(WITHIN_MS).emitWithAck("CHAT_MESSAGE", { to, ciphertexts, opId });
    if (ack.ok) return { message: ack.data, claimed, types: ciphertexts.map(({ type }) => type) };
    if (ack.error.code !== "DEVICES_MISMATCH") throw new Error(ack.error.code);
    for (const { userId, deviceId } of ack.error.details.missing) claimed.push(...(await claim(userId, deviceId)));
    for (const { userId, deviceId } of ack.error.details.stale) me.devices.delete(`${userId}/${deviceId}`);
  }
  throw new Error("the devices change faster than they can be written to");
}

async function read({ sender, ciphertext, encrypted, text }) {
  try {
    if (!encrypted || text !== null) throw new Error("this was not encrypted");
    const address = addressOf(sender.id, ciphertext.senderDeviceId);
    const body = bytes(ciphertext.body);
    const first = ciphertext.type === signal.CiphertextMessageType.PreKey;
    const plain = first
      ? await signal.signalDecryptPreKey(
          signal.PreKeySignalMessage.deserialize(body), address, me.sessions, me.identities, me.prekeys, me.signed, me.kem,
        )
      : await signal.signalDecrypt(signal.SignalMessage.deserialize(body), address, me.sessions, me.identities);
    know(sender.id, ciphertext.senderDeviceId);
    say({ event: "read", from: sender.id, text: Buffer.from(plain).toString(), type: ciphertext.type });
  } catch (error) {
    say({ event: "unreadable", from: sender.id, error: String(error?.message ?? error) });
  }
}

const verbs = { begin, dial: ({ url }) => dial(url), claim: ({ userId }) => claim(userId), send };

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const { id, do: verb, ...ask } = JSON.parse(line);
    try {
      say({ id, value: (await verbs[verb](ask)) ?? null });
    } catch (error) {
      say({ id, error: String(error?.message ?? error) });
    }
  })
  .on("close", () => process.exit(0));
