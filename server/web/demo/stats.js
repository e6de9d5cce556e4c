// What CALL_QUALITY carries, from two readings of getStats: rates and losses are of the time between them.

/** Sums of one reading: bytes, packets, the worst jitter, the round trip of the pair in use. */
function totals(report) {
  const sum = { received: 0, sent: 0, packets: 0, lost: 0, jitterMs: 0, rttMs: null, at: performance.now() };
  let pairId = null;
  for (const one of report.values()) {
    if (one.type === "transport" && one.selectedCandidatePairId) pairId = one.selectedCandidatePairId;
    if (one.type === "inbound-rtp") {
      sum.received += one.bytesReceived ?? 0;
      sum.packets += one.packetsReceived ?? 0;
      sum.lost += Math.max(0, one.packetsLost ?? 0);
      sum.jitterMs = Math.max(sum.jitterMs, (one.jitter ?? 0) * 1000);
    }
    if (one.type === "outbound-rtp") sum.sent += one.bytesSent ?? 0;
  }
  for (const one of report.values()) {
    const used = pairId ? one.id === pairId : one.type === "candidate-pair" && one.nominated;
    if (used && Number.isFinite(one.currentRoundTripTime)) sum.rttMs = one.currentRoundTripTime * 1000;
  }
  return sum;
}

const kbps = (bytes, ms) => Math.round((Math.max(0, bytes) * 8) / Math.max(1, ms));

export class Gauge {
  #before = null;

  /** `{rttMs, inbound: {bitrateKbps, jitterMs, lossPercent}, outbound: {bitrateKbps}}`, or null at the first reading. */
  async read(connection) {
    const now = totals(await connection.getStats());
    const before = this.#before;
    this.#before = now;
    if (!before || now.received < before.received) return null;
    const span = now.at - before.at;
    const lost = Math.max(0, now.lost - before.lost);
    const expected = lost + now.packets - before.packets;
    const stats = {
      inbound: {
        bitrateKbps: kbps(now.received - before.received, span),
        jitterMs: Math.round(now.jitterMs * 10) / 10,
        lossPercent: expected > 0 ? Math.round((lost / expected) * 1000) / 10 : 0,
      },
      outbound: { bitrateKbps: kbps(now.sent - before.sent, span) },
    };
    if (now.rttMs !== null) stats.rttMs = Math.round(now.rttMs * 10) / 10;
    return stats;
  }
}

/** 0 (bad) to 3 (good), for the bars. */
export function grade({ rttMs = 0, inbound }) {
  if (inbound.lossPercent > 8 || rttMs > 600) return 0;
  if (inbound.lossPercent > 3 || rttMs > 400 || inbound.jitterMs > 60) return 1;
  if (inbound.lossPercent > 1 || rttMs > 200 || inbound.jitterMs > 30) return 2;
  return 3;
}
