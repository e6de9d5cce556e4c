// The money of a call: its price, what it charges as it runs, its warning and its receipt. Elements in, state out; like
// view.js it decides how things look and what they are called, never what happens.
import { isFree, moneyText, rateText, spanText, termsOf } from "./money.js";
import { at, show, write } from "./page.js";
import { clockText, nameOf } from "./util.js";

const COUNTDOWN_MS = 15_000; // from here on every second counts

/** What is to be seen: nothing, the price `before` a call, the money of a `live` one, or how it is `over`. */
function sceneOf({ phone, quote, put }) {
  const { leg } = phone;
  if (phone.busy) return "live";
  if (leg?.over && leg !== put && leg.call?.activeAt && !isFree(leg.call.price)) return "over";
  return quote.prices ? "before" : "none";
}

/**
 * `put`: the leg whose receipt has been put away. `short`: the refusal for want of money that is on the page, or null.
 */
export function drawTill({ phone, meter, quote, purse, receipt, put, short }) {
  const scene = sceneOf({ phone, quote, put });
  const slot = at("meter-slot");
  slot.dataset.scene = short && scene === "none" ? "before" : scene;
  show(slot, scene !== "none" || Boolean(short));
  const price = scene === "live" || scene === "over" ? meter.price : quote.prices?.audio.price;
  const paid = (scene === "live" || scene === "over") && price && !isFree(price);
  const earned = scene === "over" && receipt?.copy === "payee";
  show(at("earned-box"), earned);
  if (earned) write(at("earned"), moneyText(receipt.earnedMinor, receipt.currency));
  show(at("charged-box"), Boolean(paid));
  show(at("lasts-box"), scene === "live" && paid && meter.leftMs !== null);
  show(at("lasts-bar"), scene === "live" && paid && meter.leftMs !== null);
  drawPrice(scene, quote, price);
  drawRunning({ scene, paid, meter, phone });
  drawWarning({ scene, meter, purse, short, phone });
  show(at("receipt"), scene === "over" && Boolean(receipt));
}

const payerOf = (leg) => (leg.role === "caller" ? "You" : nameOf(leg.other));

function payVerb(leg, scene) {
  if (scene === "over") return "paid";
  return leg.role === "caller" ? "pay" : "pays";
}

/** Before a call its price and how far the money goes, in a call its tariff, after one what the next would cost. */
function drawPrice(scene, quote, price) {
  const asked = scene === "live" ? null : quote.prices;
  show(at("price-line"), Boolean(price) && (scene !== "over" || Boolean(asked)));
  if (!price) return;
  write(at("price"), asked ? pricesText(asked) : rateText(price));
  const terms = asked ? [...termsOf(asked.audio.price), ...lastsText(asked)] : termsOf(price);
  write(at("price-more"), [...(scene === "over" ? ["for the next call"] : []), ...terms].join(" · "));
}

/** One price, or one for each kind of call. */
function pricesText({ audio, video }) {
  if (audio.price.ratePerMinuteMinor === video.price.ratePerMinuteMinor) return rateText(audio.price);
  if (isFree(audio.price) || isFree(video.price)) return `Audio ${rateText(audio.price)}, video ${rateText(video.price)}`;
  return `Audio ${moneyText(audio.price.ratePerMinuteMinor, audio.price.currency)}, video ${rateText(video.price)}`;
}

function lastsText({ audio, video }) {
  const asked = audio.affordableSeconds === null ? video : audio;
  if (asked.affordableSeconds === null) return [];
  const money = `your ${moneyText(asked.availableMinor, asked.price.currency)}`;
  if (!asked.affordableSeconds) return [`${money} is not enough`];
  return [`${money} lasts ${spanText(asked.affordableSeconds)}${withVideoText(asked, video)}`];
}

function withVideoText(asked, { affordableSeconds }) {
  if (affordableSeconds === asked.affordableSeconds || affordableSeconds === null) return "";
  return affordableSeconds ? `, with video ${spanText(affordableSeconds)}` : ", not enough for video";
}

/** What changes by itself as a call goes on. */
function drawRunning({ scene, paid, meter, phone }) {
  if (!paid) return;
  write(at("charged"), moneyText(meter.chargedMinor, meter.price.currency));
  write(at("charged-label"), `${payerOf(phone.leg)} ${payVerb(phone.leg, scene)}`);
  if (scene !== "live" || meter.leftMs === null) return;
  const low = meter.leftMs <= COUNTDOWN_MS;
  at("meter-slot").dataset.low = String(low && phone.state !== "ringing");
  write(at("lasts-label"), meter.paying ? "Your money lasts" : "Their money lasts");
  write(at("lasts"), clockText(Math.ceil(meter.leftMs / 1000)));
  at("lasts-bar").value = meter.share;
}

function drawWarning({ scene, meter, purse, short, phone }) {
  const warned = scene === "live" && meter.warned !== null && phone.state !== "ringing";
  show(at("money-warning"), warned || Boolean(short));
  if (warned) {
    const ending = meter.leftMs !== null && meter.leftMs <= COUNTDOWN_MS;
    write(at("warning-title"), ending ? "The call is about to be cut off." : "Your money is running out.");
    write(at("warning-text"), ending ? "Top up, and it goes on." : "Less than a minute is left. Top up, and the call goes on.");
  } else if (short) {
    const { requiredMinor, availableMinor = purse.spendableMinor, currency } = short;
    write(at("warning-title"), "Not enough money for this.");
    write(at("warning-text"), `It takes at least ${moneyText(requiredMinor, currency)}, and you have ${moneyText(availableMinor, currency)}.`);
  }
}
