// Makes one tree like another and leaves alone what is the same: focus, typed text, open menus and scrolling stay.

export function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || (old.id || "") !== (fresh.id || "")) {
    old.replaceWith(document.importNode(fresh, true));
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if (old.dataset.keep !== undefined && old.dataset.keep === fresh.dataset.keep) return;
  if (old.isEqualNode(fresh)) return;
  attributes(old, fresh);
  if (old.nodeName !== "TEXTAREA") children(old, fresh);
}

function attributes(old, fresh) {
  const stays = old.nodeName === "DETAILS" ? "open" : "";
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== stays && name !== "data-sent") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value && name !== stays) old.setAttribute(name, value);
  }
}

function children(old, fresh) {
  let here = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    const same = next.id ? [...old.children].find((child) => child.id === next.id) : null;
    if (same && same !== here) old.insertBefore(same, here);
    const now = same ?? here;
    if (!now) {
      old.append(document.importNode(next, true));
      continue;
    }
    here = now.nextSibling;
    morph(now, next);
  }
  while (here) {
    const gone = here;
    here = here.nextSibling;
    gone.remove();
  }
}
