// Keeps a page fresh: on each event the page is fetched again and what differs is put in place.
import { morph } from "./morph.js";

const WAIT = 120; // ms: events that come together are one look
const REST = 1000; // ms between two looks, so that a busy hour costs the server little

export function keepFresh(address, changed) {
  let timer = 0, busy = false, again = false, failures = 0, looked = 0, source = null;
  const lost = document.getElementById("lost");
  const url = new URL(address, location.href);

  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href.split("#")[0], { headers: { Accept: "text/html" }, redirect: "manual" });
      if (answer.type === "opaqueredirect") { location.reload(); return; }
      if (!answer.ok) return;
      put(new DOMParser().parseFromString(await answer.text(), "text/html"));
      changed();
    } catch {
      lost.hidden = false;
    } finally {
      busy = false;
      looked = Date.now();
      if (again) { again = false; soon(); }
    }
  }
  function put(fresh) {
    for (const old of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(old.id);
      if (next) morph(old, next);
    }
    document.title = fresh.title;
  }
  function soon() {
    clearTimeout(timer);
    timer = setTimeout(refresh, Math.max(WAIT, looked + REST - Date.now()));
  }

  function listen() {
    source = new EventSource(url);
    source.onmessage = (event) => { url.searchParams.set("after", event.lastEventId); soon(); };
    source.onopen = () => { if (failures > 1) soon(); failures = 0; lost.hidden = true; };
    // A stream ends by itself about once a minute and is opened again at once; only several failures in a row count.
    source.onerror = () => {
      failures += 1;
      if (failures > 4 || source.readyState === EventSource.CLOSED) lost.hidden = false;
    };
  }

  listen();
  // A page that nobody sees holds no connection: a browser has few of them, and the server a thread for each.
  document.addEventListener("visibilitychange", () => {
    source.close();
    if (!document.hidden) { listen(); soon(); }
  });
  window.addEventListener("pagehide", () => source.close());
  window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}
