// The official Socket.IO server as a bare relay by room, for `make bench-peers`: node relay.mjs PORT.
// A connection's token is its room. No checks, no limits, no compression (the default).

import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, {
  transports: ["websocket"],
  serveClient: false,
  pingInterval: 5000,
  pingTimeout: 10000,
});

io.on("connection", (socket) => {
  socket.join(socket.handshake.auth.token);
  socket.on("ICE_CANDIDATE", (payload, ack) => {
    socket.to(payload.callId).emit("ICE_CANDIDATE", payload);
    ack?.({ ok: true, data: {} });
  });
  socket.emit("SYNC", {});
});

http.listen(Number(process.argv[2]), "127.0.0.1");
