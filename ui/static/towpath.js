// Everything works without this file; it keeps open pages fresh and logs flowing.
import { keepFresh } from "./live.js";
import { followLog } from "./log.js";
import { keepTime } from "./time.js";

document.documentElement.classList.add("js");
keepTime();
const address = document.body.dataset.events;
if (address) keepFresh(address, () => { keepTime(); followLog(); });
followLog();

// A form is sent once, however often its button is pressed.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
});
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

// One open menu at a time; Escape and a click elsewhere close it.
const menus = () => document.querySelectorAll("details.pop[open], details.menu[open]");
document.addEventListener("click", (event) => {
  for (const menu of menus()) if (!menu.contains(event.target)) menu.open = false;
  const place = event.target.closest?.("[data-goto]")?.dataset.goto;
  if (place) goTo(document.getElementById("editor"), ...place.split(":").map(Number));
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") for (const menu of menus()) { menu.open = false; menu.querySelector("summary").focus(); }
});

function goTo(editor, line, column) {
  const lines = editor.value.split("\n");
  const start = lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
  editor.focus();
  editor.setSelectionRange(start + column - 1, start + (lines[line - 1] ?? "").length);
  editor.scrollTop = Math.max(0, (line - 5) * (editor.scrollHeight / lines.length));
}
