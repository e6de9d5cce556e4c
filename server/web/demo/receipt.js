// The receipt of a call as a card: when they talked, at what price, what was charged. And as a file, for
// `python main.py verify-receipt FILE`.
import { costOf, moneyText, rateText } from "./money.js";
import { icon, make } from "./page.js";
import { clockText, wait } from "./util.js";

const PATIENCE_MS = [0, 250, 500, 1000, 2000, 4000, 8000]; // the money is settled right after the call, in most cases at once

const capital = (text) => text[0].toUpperCase() + text.slice(1);

/** The receipt of a call that has ended, when it is there; null when it does not come. `wanted()` false: never mind. */
export async function fetchReceipt(api, callId, wanted) {
  for (const pause of PATIENCE_MS) {
    await wait(pause);
    if (!wanted()) return null;
    const call = await api.callById(callId).catch((refusal) => console.debug(`receipt: ${refusal.message}`));
    if (call?.receipt) return call.receipt;
  }
  return null;
}

/** What stands on the card. */
export function receiptCard(receipt) {
  const money = (minor) => moneyText(minor, receipt.currency);
  const lines = receipt.segments.map((one) => {
    const charged = one.billedSeconds && one.billedSeconds !== Math.floor(one.talkMs / 1000);
    const length = charged ? `${clockText(one.billedSeconds)} charged, ` : "";
    const talked = `${capital(one.type)} ${clockText(one.talkMs / 1000)}`;
    return line(talked, `${length}${rateText(one.price)}${feesOf(one)}`, money(one.amountMinor));
  });
  if (receipt.refundedMinor) lines.push(line("Given back", "", money(-receipt.refundedMinor)));
  const total = line("Total", "", money(receipt.totalMinor));
  total.className = "total";
  const facts = [intervalsText(receipt.intervals), ...(receipt.copy === "payee" ? [] : payerFacts(receipt, money))];
  const list = make("ul", "receipt-lines");
  list.append(...lines, total);
  return [...headOf(receipt, money), list, ...facts.map((text) => make("p", "fine", text)), fileOf(receipt)];
}

/** Who is paid reads first what it brings. */
function headOf(receipt, money) {
  if (receipt.copy !== "payee") return [make("h3", "", "Receipt")];
  const earned = make("p", "earned", `You earn ${money(receipt.earnedMinor)}`);
  earned.append(make("span", "", `; the platform keeps ${receipt.platformShareBps / 100} %.`));
  return [earned, make("h3", "", "Receipt, your copy as who is paid")];
}

function line(what, how, amount) {
  const item = make("li");
  const text = make("span");
  text.append(make("strong", "", what), make("small", "", how));
  item.append(text, make("span", "amount", amount));
  return item;
}

function feesOf({ price, amountMinor, talkMs }) {
  if (!amountMinor) return "";
  const fee = price.connectFeeMinor ? `, ${moneyText(price.connectFeeMinor, price.currency)} to connect` : "";
  const raised = price.minimumMinor === amountMinor && costOf({ ...price, minimumMinor: 0 }, talkMs) < amountMinor;
  return raised ? `${fee}, the minimum` : fee;
}

function intervalsText(intervals) {
  const time = (iso) => new Date(iso).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  return `Talked ${intervals.map(({ start, end }) => `${time(start)} – ${time(end)}`).join(", ")}`;
}

/** What only who pays may know: from where it came, and what was set aside. */
function payerFacts(receipt, money) {
  const from = new Map();
  for (const { account, amountMinor } of receipt.charges) from.set(account, (from.get(account) ?? 0) - amountMinor);
  const said = [...from].map(([account, minor]) => `${money(minor)} from your ${account === "primary" ? "balance" : "call credits"}`);
  const paid = from.size > 1 ? [`Paid ${said.join(", ")}.`] : [];
  return [...paid, `${money(receipt.reservedMinor)} was reserved for it, ${money(receipt.releasedMinor)} of that came back.`];
}

function fileOf(receipt) {
  const button = make("button", "quiet");
  button.type = "button";
  button.dataset.test = "receipt-file";
  button.append(icon("down"), "Save as a file");
  button.title = "A signed file that python main.py verify-receipt can check";
  button.addEventListener("click", () => {
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(receipt, null, 2)], { type: "application/json" }));
    link.download = `receipt-${receipt.callId}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
  return button;
}
