// Appends lines to the log as they are written. Text comes as spans and goes in as text, so it stays inert.

const KEEP = 5000; // lines on the page; older ones are a link away

let source = null; // the open stream
let list = null; // the log that it is for
let address = null; // where the stream goes on

export function followLog() {
  const found = document.querySelector("ol[data-log]");
  if (found === list) return;
  source?.close();
  list = found;
  if (!list) return;
  address = new URL(list.dataset.log, location.href);
  stayAtEnd(list);
  listen();
}

document.addEventListener("visibilitychange", () => {
  source?.close();
  if (list && address && !document.hidden) listen();
});
window.addEventListener("pagehide", () => source?.close());

function listen() {
  const lines = list;
  source = new EventSource(address);
  source.addEventListener("lines", (event) => {
    address.searchParams.set("at", event.lastEventId);
    for (const [number, spans] of JSON.parse(event.data)) put(lines, number, spans);
    while (lines.children.length > KEEP) lines.firstElementChild.remove();
    const count = document.getElementById("linecount");
    if (count) count.textContent = `${Number(lines.lastElementChild.id.slice(1)).toLocaleString("en")} lines`;
    if (following()) lines.scrollTop = lines.scrollHeight;
  });
  source.addEventListener("end", () => { source.close(); address = null; });
}

function following() {
  return document.getElementById("follow")?.checked ?? true;
}

function stayAtEnd(lines) {
  const atEnd = () => lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 40;
  if (!location.hash.startsWith("#L")) lines.scrollTop = lines.scrollHeight;
  lines.addEventListener("scroll", () => {
    const box = document.getElementById("follow");
    if (box) box.checked = atEnd();
  });
  document.getElementById("follow")?.addEventListener("change", () => {
    if (following()) lines.scrollTop = lines.scrollHeight;
  });
}

function put(lines, number, spans) {
  const id = `L${number}`;
  let line = document.getElementById(id);
  if (!line) {
    line = document.createElement("li");
    line.id = id;
    const link = document.createElement("a");
    link.href = `${lines.dataset.line}&line=${number}#${id}`;
    link.textContent = number;
    line.append(link, document.createElement("span"));
    lines.append(line);
  }
  line.lastElementChild.replaceChildren(...spans.map(([names, text]) => {
    if (!names) return document.createTextNode(text);
    const span = document.createElement("span");
    span.className = names;
    span.textContent = text;
    return span;
  }));
}
