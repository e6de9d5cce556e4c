// Paying at a gateway's checkout: in a tab of its own, so that a call goes on while somebody pays; and the sandbox's
// without looking at it.

const SANDBOX = "/sandbox/checkout/";

/** A tab for a checkout. To be called in the click itself: later no browser lets a page open one. Null: not even then. */
export function checkoutTab() {
  const tab = window.open("about:blank", "_blank");
  // It has a copy of what this tab remembers; coming back it must know that it is not this phone.
  tab?.sessionStorage.setItem("ringmeter.checkout", "true");
  return tab;
}

/** A checkout's address. The sandbox is part of this server, by whatever name this page has reached it. */
export function here(checkoutUrl) {
  const url = new URL(checkoutUrl, location.href);
  return url.pathname.startsWith(SANDBOX) ? url.pathname + url.search : checkoutUrl;
}

/** Go there: in the tab that the click has opened, or instead of this page. */
export function goTo(checkoutUrl, tab) {
  if (tab) tab.location.replace(here(checkoutUrl));
  else location.assign(here(checkoutUrl));
}

/** Pay on the sandbox's page without showing it. False: the checkout is another gateway's, where nobody can do that. */
export async function payHere(checkoutUrl) {
  const path = here(checkoutUrl);
  if (!path.startsWith(SANDBOX)) return false;
  const page = new DOMParser().parseFromString(await (await fetch(path)).text(), "text/html");
  const form = page.querySelector("form");
  if (!form) return false;
  const fields = new URLSearchParams(new FormData(form));
  fields.set("outcome", "paid");
  return (await fetch(path, { method: "POST", body: fields })).ok;
}
