// The list is read anew when the number of mails changes; "/" goes to the search, Escape back to the list.
"use strict";
const list = document.getElementById("list");
const clear = document.getElementById("clear");

async function refresh() {
  if (!list || document.hidden) return;
  const answer = await fetch(`/api/messages?limit=0&q=${encodeURIComponent(document.getElementById("q").defaultValue)}`);
  if (!answer.ok) return;
  const { total } = await answer.json();
  if (String(total) === list.dataset.total) return;
  const page = new DOMParser().parseFromString(await (await fetch(location.href)).text(), "text/html");
  const fresh = page.getElementById("list");
  if (!fresh) return;
  const focused = document.activeElement && document.activeElement.getAttribute("href");
  list.replaceChildren(...fresh.childNodes);
  list.dataset.total = fresh.dataset.total;
  document.title = page.title;
  clear.disabled = fresh.dataset.total === "0";
  if (focused) list.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
}

if (list) {
  setInterval(() => refresh().catch(() => {}), 1000);
  clear.addEventListener("click", async () => {
    if (!confirm("Delete all mails of this mailbox?")) return;
    await fetch("/api/messages", { method: "DELETE" });
    await refresh();
  });
}

document.addEventListener("keydown", (event) => {
  if (event.key === "/" && event.target === document.body) {
    document.getElementById("q")?.focus();
    event.preventDefault();
  } else if (event.key === "Escape" && !list) {
    document.getElementById("back").click();
  }
});
