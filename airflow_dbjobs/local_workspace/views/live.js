// Fetches this page again while it says that it can change, and applies only what differs: so scroll positions, the
// selection, the focus and opened details stay.
"use strict";

// Text of a log that the reader has scrolled up in: what it shows stays, and what is new follows it.
function continued(log, fresh) {
  const shown = log.textContent, next = fresh.textContent, end = shown.slice(-2000);
  const at = next.lastIndexOf(end);
  if (at >= 0) fresh.firstElementChild.textContent = shown + next.slice(at + end.length);
}

function updateLog(log, fresh) {
  // The log's content is in reverse (see pages.css), so 0 is its end, where it stays by itself.
  if (log.scrollTop >= -2) return updateChildren(log, fresh);
  continued(log, fresh);
  const { scrollTop, scrollHeight } = log;
  updateChildren(log, fresh);
  log.scrollTop = scrollTop - (log.scrollHeight - scrollHeight);
}

function updateChildren(old, fresh) {
  const known = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
  let at = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    const same = next.id ? known.get(next.id) : at && !at.id && at.nodeName === next.nodeName ? at : null;
    if (!same) {
      old.insertBefore(next, at);
    } else {
      if (same === at) at = at.nextSibling;
      else old.insertBefore(same, at);
      known.delete(next.id);
      update(same, next);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function update(old, fresh) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (fresh.data.startsWith(old.data)) old.appendData(fresh.data.slice(old.data.length));
    else old.data = fresh.data;
    return;
  }
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes]) if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  if (old.matches(".log")) updateLog(old, fresh);
  else updateChildren(old, fresh);
}

async function refresh() {
  const began = performance.now();
  const warning = document.getElementById("lost");
  if (!document.hidden) {
    try {
      const reply = await fetch(location.href, { cache: "no-store" });
      const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
      document.title = fresh.title;
      update(document.querySelector("main"), fresh.querySelector("main"));
      warning.hidden = true;
    } catch {
      warning.hidden = false;
    }
  }
  // A page that takes long to make or to apply is fetched less often.
  if ("live" in document.querySelector("main").dataset) setTimeout(refresh, 1000 + 10 * (performance.now() - began));
}

setTimeout(refresh, 1000);
