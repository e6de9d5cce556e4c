// Money in words and figures. Amounts are integers in the currency's minor unit, as the server sends them.
// Nothing here touches the page or the network.

const formats = new Map();

function format(currency) {
  if (!formats.has(currency)) {
    const style = { style: "currency", currency, currencyDisplay: "narrowSymbol" };
    formats.set(currency, new Intl.NumberFormat(undefined, style));
  }
  return formats.get(currency);
}

/** `1000, "NGN"` → `₦10.00`; `1000, "JPY"` → `¥1,000`: Intl knows how many decimals a currency has. */
export function moneyText(amountMinor, currency) {
  const style = format(currency);
  return style.format(amountMinor / 10 ** style.resolvedOptions().maximumFractionDigits);
}

/** `10, "NGN"` → `1000`: what a person typed, in minor units. */
export const minorOf = (amount, currency) => Math.round(amount * 10 ** format(currency).resolvedOptions().maximumFractionDigits);

export const isFree = (price) => price.ratePerMinuteMinor === 0;

/** The seconds that are charged for so much talking: whole blocks, the first one perhaps of another length. */
export function billedSeconds({ firstBlockSeconds, blockSeconds }, talkMs) {
  if (talkMs <= 0) return 0;
  const seconds = Math.max(1, Math.floor(talkMs / 1000));
  const blocks = Math.max(0, Math.ceil((seconds - firstBlockSeconds) / blockSeconds));
  return firstBlockSeconds + blocks * blockSeconds;
}

/** The price of so much talking, in minor units: the server's own rule, so that the figure can run between its ticks. */
export function costOf(price, talkMs) {
  const billed = billedSeconds(price, talkMs);
  if (!billed || isFree(price)) return 0;
  return Math.max(price.minimumMinor, price.connectFeeMinor + halfEven(price.ratePerMinuteMinor * billed, 60));
}

/** A whole quotient; halves go to the even neighbour. */
function halfEven(numerator, denominator) {
  const whole = Math.floor(numerator / denominator);
  const twice = 2 * (numerator - whole * denominator);
  return whole + (twice > denominator || (twice === denominator && whole % 2 === 1) ? 1 : 0);
}

/** `20` → `20 s`, `330` → `5 min 30 s`, `3000` → `50 min`, `9000` → `2 h 30 min`. */
export function spanText(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 10 && whole % 60) return `${minutes} min ${whole % 60} s`;
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
}

/** `60` → `minute`, `1` → `second`, `30` → `30 seconds`. */
function blockText(seconds) {
  const one = { 1: "second", 60: "minute", 3600: "hour" }[seconds];
  return one ?? (seconds % 60 ? `${seconds} seconds` : `${seconds / 60} minutes`);
}

/** `₦10.00 a minute`, or `Free`. */
export function rateText(price) {
  return isFree(price) ? "Free" : `${moneyText(price.ratePerMinuteMinor, price.currency)} a minute`;
}

/** What else there is to know of a tariff: its blocks, and fee and minimum where they matter. */
export function termsOf(price) {
  if (isFree(price)) return [];
  const { firstBlockSeconds: first, blockSeconds: block, connectFeeMinor: fee, minimumMinor: minimum, currency } = price;
  const terms = [`charged by the ${blockText(block)}`];
  if (first !== block) terms[0] = `the first ${blockText(first)} in full, then by the ${blockText(block)}`;
  if (fee) terms.push(`${moneyText(fee, currency)} to connect`);
  if (minimum > costOf({ ...price, minimumMinor: 0 }, 1)) terms.push(`at least ${moneyText(minimum, currency)}`);
  return terms;
}
