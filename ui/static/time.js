// Keeps "5 min ago" and running durations true while a page is open; the same words as ui/look.py and cd/units.py.

export function keepTime() {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[datetime]:not(.exact)")) {
    const text = ago((now - Date.parse(time.dateTime)) / 1000);
    if (text && time.textContent !== text) time.textContent = text;
  }
  for (const running of document.querySelectorAll("[data-since]")) {
    const text = took(Math.max(0, (now - Date.parse(running.dataset.since)) / 1000));
    if (running.textContent !== text) running.textContent = text;
  }
}
setInterval(keepTime, 1000);

function ago(seconds) {
  if (seconds < 45) return "just now";
  for (const [size, limit, unit] of [[60, 60, "min"], [3600, 48, "h"], [86400, 60, "d"]]) {
    if (seconds < size * limit - size / 2) return `${Math.max(1, Math.round(seconds / size))} ${unit} ago`;
  }
  return "";
}

function took(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60), rest = Math.round(seconds) % 60;
  if (minutes < 60) return rest ? `${minutes} min ${rest} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
}
