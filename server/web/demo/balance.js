// The balance in the head of both pages, and what its buttons are called.
import { moneyText } from "./money.js";
import { at, show, write } from "./page.js";
import { topUpText } from "./purse.js";

export function drawPurse({ wallet }) {
  show(at("wallet-slot"), Boolean(wallet));
  if (!wallet) return;
  const { currency, callCredits, heldMinor, availableMinor, pendingEarningsMinor } = wallet;
  const held = heldMinor + callCredits.heldMinor;
  const more = [];
  if (callCredits.availableMinor) more.push(`+ ${moneyText(callCredits.availableMinor, currency)} call credits`);
  if (held) more.push(`${moneyText(held, currency)} held`);
  if (pendingEarningsMinor) more.push(`${moneyText(pendingEarningsMinor, currency)} earned`);
  if (wallet.frozen) more.push("frozen");
  write(at("balance"), moneyText(availableMinor, currency));
  write(at("balance-more"), more.join(" · "));
  const why = [];
  if (held) why.push("Held for the call: what it does not cost comes back.");
  if (pendingEarningsMinor) why.push("What you have earned can be spent once it can no longer be disputed.");
  at("balance-more").title = why.join(" ");
  for (const button of [at("top-up"), at("top-up-now")]) {
    button?.setAttribute("aria-label", `Top up ${topUpText(currency)}`);
    if (button) button.title = `Pays ${topUpText(currency)} in at once, with play money`;
  }
  if (at("top-up-now")) write(at("top-up-now"), `Top up ${topUpText(currency)}`);
}
