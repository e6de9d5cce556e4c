// Small pure helpers that several modules share. Nothing here touches the page or the network.

/** A random UUID. `crypto.randomUUID` exists on secure origins only, and a phone on the LAN opens plain http. */
export function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** The account name for what a person typed: what an address and a username both allow. */
export function slug(name) {
  return name
    .trim()
    .normalize("NFKD")
    .replace(/\p{M}/gu, "")
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, "_")
    .replace(/^[._-]+|[._-]+$/g, "");
}

/** `75` → `1:15`; `3700` → `1:01:40`. Seconds in, text out. */
export function clockText(seconds) {
  const whole = Math.max(0, Math.floor(seconds || 0));
  const parts = [Math.floor(whole / 60) % 60, whole % 60];
  if (whole >= 3600) parts.unshift(Math.floor(whole / 3600));
  return parts.map((part, index) => (index ? String(part).padStart(2, "0") : String(part))).join(":");
}

/** An instant as people say it: the time today, else the day and the time. */
export function whenText(iso) {
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) return "";
  const time = at.toLocaleTimeString([], { hour: "numeric", minute: "2-digit" });
  if (at.toDateString() === new Date().toDateString()) return time;
  return `${at.toLocaleDateString([], { day: "numeric", month: "short" })}, ${time}`;
}

export function nameOf(user) {
  return (user && (user.displayName || user.username)) || "Somebody";
}

export function initials(user) {
  const words = nameOf(user).split(/[\s._-]+/).filter(Boolean);
  return (words.length > 1 ? words[0][0] + words[1][0] : (words[0] || "?").slice(0, 2)).toUpperCase();
}

/** One of six tints, the same for a person every time. */
export function tintOf(user) {
  let sum = 0;
  for (const char of nameOf(user).toLowerCase()) sum = (sum * 31 + char.codePointAt(0)) >>> 0;
  return sum % 6;
}

export const wait = (ms) => new Promise((done) => setTimeout(done, ms));

/** A refusal of the server, or one of our own, as something to throw and to show. */
export class Refusal extends Error {
  constructor({ code = "UNKNOWN", message = "Something went wrong.", details, retryAfterMs } = {}, status = 0) {
    super(message);
    Object.assign(this, { code, details, retryAfterMs, status });
  }

  /** The sentence for people: the message, what is wrong with which field, when to come back. */
  get sentence() {
    const fields = Object.entries(this.details || {})
      .filter(([, said]) => Array.isArray(said))
      .map(([field, said]) => `${field}: ${said.join(" ")}`);
    const later = this.retryAfterMs ? [`Try again in ${Math.ceil(this.retryAfterMs / 1000)} s.`] : [];
    return [this.message, ...fields, ...later].join(" ");
  }
}

/** What this tab remembers across a reload, and no other tab knows. */
export const memory = {
  get(key) {
    try {
      return JSON.parse(sessionStorage.getItem(`ringmeter.${key}`));
    } catch {
      return null;
    }
  },
  set(key, value) {
    if (value === null || value === undefined) sessionStorage.removeItem(`ringmeter.${key}`);
    else sessionStorage.setItem(`ringmeter.${key}`, JSON.stringify(value));
  },
  clear() {
    for (const key of Object.keys(sessionStorage)) if (key.startsWith("ringmeter.")) sessionStorage.removeItem(key);
  },
};
