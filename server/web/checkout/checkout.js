// The page works without this. Where an app has opened it in a window of its own, that window goes when all is done.
const SEEN_MS = 1_500;

if (document.body.dataset.done === "yes" && window.opener) setTimeout(() => window.close(), SEEN_MS);
