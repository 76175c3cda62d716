// The list is read anew when the number of mails changes, unless somebody is further down in it.
// "/" goes to the search, j and k to the next mail and back, 1 to 6 to a view of a mail, Escape back to the list.
"use strict";
const PERIOD = 1000; // milliseconds
const list = document.getElementById("list");
const status_ = document.getElementById("status");
const show = document.getElementById("show");
const query = document.getElementById("q")?.defaultValue ?? "";
let heading = status_?.textContent; // what the list says of itself

function say(text, news = 0) {
  if (status_.textContent !== text) status_.textContent = text;
  status_.classList.toggle("danger", text !== heading && !news);
  show.hidden = !news;
}

async function read(address) {
  const answer = await fetch(address, { signal: AbortSignal.timeout(10000) });
  if (!answer.ok) throw new Error(answer.statusText);
  return answer;
}

async function replace() {
  const text = await (await read(location.href)).text();
  const page = new DOMParser().parseFromString(text, "text/html");
  const fresh = page.getElementById("list");
  if (!fresh) return;
  list.replaceChildren(...fresh.childNodes);
  list.dataset.total = fresh.dataset.total;
  heading = page.getElementById("status").textContent;
  document.title = page.title;
  document.getElementById("clear").disabled = fresh.dataset.total === "0";
  say(heading);
}

async function refresh() {
  if (document.hidden) return;
  const { total } = await (await read(`/count?q=${encodeURIComponent(query)}`)).json();
  const added = total - Number(list.dataset.total);
  const reads = window.scrollY > 0 || list.dataset.offset !== "0" || list.contains(document.activeElement);
  if (added > 0 && reads) {
    say(`${added.toLocaleString("en")} new mail${added === 1 ? "" : "s"}`, added);
  } else if (added !== 0) {
    await replace();
  } else {
    say(heading);
  }
}

async function watch() {
  for (;;) {
    await new Promise((done) => setTimeout(done, PERIOD));
    try {
      await refresh();
    } catch {
      say("No answer: the command that shows these mails has ended, or it is busy.");
    }
  }
}

async function remove(address) {
  const answer = await fetch(address, { method: "DELETE" });
  return answer.ok || answer.status === 404;
}

if (list) {
  watch();
  show.addEventListener("click", () => {
    if (list.dataset.offset === "0") {
      window.scrollTo(0, 0);
      replace().catch(() => {});
    } else {
      location.assign(`/?q=${encodeURIComponent(query)}`);
    }
  });
  document.getElementById("clear").addEventListener("click", async () => {
    if (!confirm("Delete all mails of this mailbox?")) return;
    await remove("/api/messages");
    await replace();
  });
}

document.getElementById("delete")?.addEventListener("click", async (event) => {
  if (await remove(event.target.dataset.address)) document.getElementById("back").click();
});

function step(by) {
  const links = [...list.querySelectorAll(".mails a")];
  const at = links.indexOf(document.activeElement);
  links[at < 0 ? 0 : Math.min(Math.max(at + by, 0), links.length - 1)]?.focus();
}

document.addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLInputElement;
  if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
  if (event.key === "/" && list) {
    document.getElementById("q").focus();
    event.preventDefault();
  } else if (event.key === "j" || event.key === "k") {
    if (list) step(event.key === "j" ? 1 : -1);
    else document.getElementById(event.key === "j" ? "older" : "newer")?.click();
  } else if (!list && event.key >= "1" && event.key <= "9") {
    document.querySelectorAll(".views a")[Number(event.key) - 1]?.click();
  } else if (event.key === "Escape" && !list) {
    document.getElementById("back")?.click();
  }
});
