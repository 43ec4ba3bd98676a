// Appends lines to the log as they are written. Text comes as spans and goes in as text, so it stays inert.

const KEEP = 5000; // lines on the page; older ones are a link away

let source = null;
let list = null;

export function followLog() {
  const found = document.querySelector("ol[data-log]");
  if (found === list) return;
  source?.close();
  list = found;
  if (!list) return;
  listen(list);
}

function listen(lines) {
  const follow = document.getElementById("follow");
  const atEnd = () => lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 40;
  if (!location.hash.startsWith("#L")) lines.scrollTop = lines.scrollHeight;
  lines.addEventListener("scroll", () => { if (follow) follow.checked = atEnd(); });
  follow?.addEventListener("change", () => { if (follow.checked) lines.scrollTop = lines.scrollHeight; });

  source = new EventSource(lines.dataset.log);
  source.addEventListener("lines", (event) => {
    for (const [number, spans] of JSON.parse(event.data)) put(lines, number, spans);
    while (lines.children.length > KEEP) lines.firstElementChild.remove();
    const count = document.getElementById("linecount");
    if (count) count.textContent = `${lines.lastElementChild.id.slice(1)} lines`;
    if (!follow || follow.checked) lines.scrollTop = lines.scrollHeight;
  });
  source.addEventListener("end", () => source.close());
  window.addEventListener("pagehide", () => source.close());
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
