// Keeps a page fresh: on each event the page is fetched again and what differs is put in place.
import { morph } from "./morph.js";

const WAIT = 120; // ms: events that come together are one look

export function keepFresh(address, changed) {
  let timer = 0, busy = false, again = false, failures = 0;
  const lost = document.getElementById("lost");

  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href.split("#")[0], { headers: { Accept: "text/html" }, redirect: "manual" });
      if (answer.type === "opaqueredirect") { location.reload(); return; }
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const old of document.querySelectorAll("[data-live]")) {
        const next = fresh.getElementById(old.id);
        if (next) morph(old, next);
      }
      document.title = fresh.title;
      changed();
      document.dispatchEvent(new Event("towpath:fresh"));
    } catch {
      lost.hidden = false;
    } finally {
      busy = false;
      if (again) { again = false; soon(); }
    }
  }
  function soon() {
    clearTimeout(timer);
    timer = setTimeout(refresh, WAIT);
  }

  const source = new EventSource(address);
  source.onmessage = soon;
  source.onopen = () => { if (failures > 1) soon(); failures = 0; lost.hidden = true; };
  // A stream ends by itself about once a minute and is opened again at once; only several failures in a row count.
  source.onerror = () => { failures += 1; if (failures > 4) lost.hidden = false; };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) soon(); });
  window.addEventListener("pagehide", () => source.close());
  window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}
