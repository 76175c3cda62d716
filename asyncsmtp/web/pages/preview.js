// What is chosen is in the address of the page. A link, a key or a saved file fetches the page and changes the parts
// of this one that differ: so the chosen row, the focus and the address to send to stay.
"use strict";
const PARTS = ["state", "order", "rows", "fault", "facts", "views", "body", "findings"];
const find = (id) => document.getElementById(id);
let loading = null;

function describeFocus() {
  const focused = document.activeElement;
  if (!focused || focused === document.body) return null;
  if (focused.id) return `#${CSS.escape(focused.id)}`;
  if (focused.dataset.row) return `a[data-row="${focused.dataset.row}"]`;
  const part = focused.closest("[id]");
  return part && `#${CSS.escape(part.id)} ${focused.localName}${focused.href ? `[href="${CSS.escape(focused.getAttribute("href"))}"]` : ""}`;
}

// The new frame is loaded behind the old one, which stays until then: nothing flickers.
function showFrame(old, fresh) {
  const before = old.querySelector("iframe:last-of-type");
  const after = fresh.querySelector("iframe");
  if (!before || !after) return false;
  old.querySelector(".switches").replaceWith(fresh.querySelector(".switches"));
  const box = old.querySelector(".frame");
  box.className = fresh.querySelector(".frame").className;
  if (before.getAttribute("src") === after.getAttribute("src")) return true;
  after.classList.add("behind");
  after.addEventListener("load", () => {
    while (box.firstElementChild !== after) box.firstElementChild.remove();
    after.classList.remove("behind");
  });
  box.append(after);
  return true;
}

function show(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  if (!fresh.getElementById("message")) return;
  const focus = describeFocus();
  const row = fresh.getElementById("message").dataset.row;
  const moved = row !== find("message").dataset.row;
  for (const id of PARTS) {
    const [old, part] = [find(id), fresh.getElementById(id)];
    if (old.outerHTML === part.outerHTML) continue;
    if (id !== "body" || !showFrame(old, part)) old.replaceWith(part);
  }
  document.title = fresh.title;
  find("message").dataset.row = row;
  find("send").hidden = fresh.getElementById("send").hidden;
  if (moved) {
    find("sent").textContent = "";
    find("message").scrollTop = 0;
    find("rows").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  }
  if (focus && (!document.activeElement || document.activeElement === document.body)) {
    const again = find("rows").querySelector(focus.startsWith("a[data-row") && moved ? "[aria-current]" : focus);
    (again || document.querySelector(focus))?.focus({ preventScroll: true });
  }
}

async function refresh() {
  loading?.abort();
  const mine = (loading = new AbortController());
  try {
    const answer = await fetch(location.pathname + location.search, { signal: mine.signal });
    const html = await answer.text();
    if (answer.ok && !mine.signal.aborted) show(html);
  } catch (error) {
    if (error.name !== "AbortError") find("ended").hidden = false;
  }
}

function go(address, replace = false) {
  history[replace ? "replaceState" : "pushState"](null, "", address);
  return refresh();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='/?']");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(link.getAttribute("href"));
});
addEventListener("popstate", refresh);

let typing = 0;
function search() {
  clearTimeout(typing);
  const address = new URL(location.href);
  address.searchParams.set("q", find("q").value);
  address.searchParams.delete("offset");
  address.searchParams.set("row", find("message").dataset.row);
  go(address.pathname + address.search, true);
}
find("q").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(search, 150);
});
find("q").form.addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isField = event.target.matches("input, textarea, select");
  if (isField) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const inList = event.target.closest("#rows");
  const views = find("views").querySelectorAll("a:not(.jump)");
  if (event.key === "/") find("q").focus();
  else if (event.key === "j" || (inList && event.key === "ArrowDown")) find("next")?.click();
  else if (event.key === "k" || (inList && event.key === "ArrowUp")) find("previous")?.click();
  else if (views[Number(event.key) - 1]) views[Number(event.key) - 1].click();
  else return;
  event.preventDefault();
});

find("send").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [row, button, sent] = [find("message").dataset.row, event.target.querySelector("button"), find("sent")];
  button.disabled = true;
  sent.className = "";
  sent.textContent = "Sending…";
  try {
    const body = JSON.stringify({ to: find("to").value });
    const answer = await fetch(`/rows/${row}/send`, { method: "POST", body, headers: { "Content-Type": "application/json" } });
    const { state, sentence, advice } = await answer.json();
    sent.className = state === "accepted" ? "good" : "bad";
    sent.textContent = advice ? `${sentence}; next: ${advice}` : sentence;
  } catch {
    sent.className = "bad";
    sent.textContent = "The command did not answer: whether it was sent is in the relay's log.";
  }
  button.disabled = false;
});

// A browser has six connections to one server: a tab that nobody sees gives its own back, and catches up afterwards.
let events = null;
function listen() {
  if (events) events.close();
  events = null;
  if (document.hidden) return;
  events = new EventSource("/events");
  events.addEventListener("message", () => {
    find("ended").hidden = true;
    refresh();
  });
  events.addEventListener("error", () => {
    find("ended").hidden = false;
  });
}
document.addEventListener("visibilitychange", listen);
listen();
