// Phones for the door tests: the official socket.io-client, driven line by line. One process holds many sockets.
//
//   in:  {"id": 1, "do": "open", "phone": "p1", "url": "http://…", "options": {"auth": {"token": "…"}}}
//        {"id": 2, "do": "emit", "phone": "p1", "event": "CALL_SYNC", "args": [{}], "withinMs": 5000}
//   out: {"id": 2, "value": [{"ok": true, …}]} or {"id": 2, "error": "…"}, and whenever something happens
//        {"phone": "p1", "event": "SYNC", "args": […]}
//
// What the client itself reports comes under names with a star: *connect, *disconnect, *connect_error, *frame.
// It ends when its standard input does.
import { createInterface } from "node:readline";
import { io } from "socket.io-client";

const phones = new Map();

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const tell = (phone, event, ...args) => say({ phone, event, args });

// {"$bytes": n} in an argument stands for n bytes: JSON has no other way to say "binary".
const revive = (value) => {
  if (Array.isArray(value)) return value.map(revive);
  if (value === null || typeof value !== "object") return value;
  if (typeof value.$bytes === "number") return Buffer.alloc(value.$bytes, 7);
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, revive(inner)]));
};

function found(name) {
  const socket = phones.get(name);
  if (!socket) throw new Error(`no phone ${name}`);
  return socket;
}

function open({ phone, url, options }) {
  const socket = io(url, { transports: ["websocket"], reconnection: false, forceNew: true, ...options });
  phones.set(phone, socket);
  socket.on("connect", () => tell(phone, "*connect", { transport: socket.io.engine.transport.name }));
  socket.on("disconnect", (reason) => tell(phone, "*disconnect", reason));
  socket.on("connect_error", (error) => tell(phone, "*connect_error", { message: error.message, data: error.data ?? null }));
  socket.onAny((event, ...args) => tell(phone, event, ...args));
  if (options?.urls) follow(phone, socket, options);
  if (options?.frames) {
    // Every packet that leaves, so that a test can count resends.
    socket.io.on("open", () => {
      socket.io.engine.on("packetCreate", (packet) => tell(phone, "*frame", String(packet.data ?? "")));
    });
  }
}

// An app as the guide has it, behind a load balancer: it keeps `since`, and comes back by itself, to the next address.
function follow(phone, socket, { urls, auth }) {
  let since;
  let tries = 0;
  socket.auth = (give) => give({ ...auth, since });
  socket.onAny((event, said) => {
    since = said?.logSeq ?? (event === "SYNC" && (said.gap || !said.missed) ? said.seq : since);
  });
  const again = () => setTimeout(() => phones.get(phone) === socket && socket.io.reconnection() && socket.connect(), 200);
  socket.on("disconnect", (reason) => reason === "io server disconnect" && again());
  socket.on("connect_error", ({ data }) => data && again());
  socket.io.on("reconnect_attempt", () => (socket.io.uri = urls[++tries % urls.length]));
}

const verbs = {
  open,

  // With withinMs an ack is asked for; the answer is the list of its arguments.
  emit({ phone, event, args, withinMs }) {
    const socket = found(phone);
    const given = revive(args ?? []);
    if (!withinMs) return void socket.emit(event, ...given);
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`no ack of ${event} within ${withinMs} ms`)), withinMs);
      socket.emit(event, ...given, (...answer) => {
        clearTimeout(late);
        resolve(answer);
      });
    });
  },

  // Many events in one tick of the loop, each with an ack: the answer is all first arguments, in the order sent.
  burst({ phone, events, withinMs }) {
    return Promise.all(events.map(([event, ...args]) => verbs.emit({ phone, event, args, withinMs }).then((a) => a[0])));
  },

  // A client with retries queues its events; the queue goes on once this one has its ack.
  emitQueued({ phone, event, args, withinMs }) {
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`no ack of ${event} within ${withinMs} ms`)), withinMs);
      found(phone).emit(event, ...revive(args ?? []), (error, ...answer) => {
        clearTimeout(late);
        if (error) reject(error);
        else resolve(answer);
      });
    });
  },

  // A frame below Socket.IO, as text: what the client itself would never write.
  frame({ phone, text }) {
    found(phone).io.engine.write(text);
  },

  auth({ phone, auth }) {
    found(phone).auth = auth;
  },

  connect({ phone }) {
    found(phone).connect();
  },

  // Goodbye said.
  close({ phone }) {
    found(phone).disconnect();
  },

  // The network is gone: no goodbye of any kind above TCP.
  kill({ phone }) {
    const { transport } = found(phone).io.engine;
    transport.ws.terminate();
  },

  // Lose the network, and stay away until "back".
  away({ phone }) {
    const { io: manager } = found(phone);
    manager.reconnection(false);
    manager.engine?.transport?.ws?.terminate();
  },

  back({ phone }) {
    found(phone).io.reconnection(true);
    found(phone).connect();
  },

  forget({ phone }) {
    const socket = phones.get(phone);
    if (!socket) return;
    phones.delete(phone);
    socket.offAny();
    socket.removeAllListeners();
    socket.io.reconnection(false);
    socket.disconnect();
  },
};

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const { id, do: verb, ...rest } = JSON.parse(line);
    try {
      say({ id, value: (await verbs[verb](rest)) ?? null });
    } catch (error) {
      say({ id, error: String(error?.message ?? error) });
    }
  })
  .on("close", () => process.exit(0));
