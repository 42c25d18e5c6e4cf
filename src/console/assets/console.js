// Keeps what a page shows up to date: asks for the same page again, and puts its live part in the place of the old one.
// Without this script, pages are as true as they were when they were loaded, and everything on them works.
"use strict";
(() => {
  const FIND = "[data-live]";
  const SLOWEST_S = 60;
  const PATIENCE_MS = 15_000;
  const news = document.getElementById("news");
  const liveness = document.getElementById("liveness");
  let failures = 0;

  // The mark of the way here over another site's link says nothing any more.
  const address = new URL(location.href);
  if (address.searchParams.has("continued")) {
    address.searchParams.delete("continued");
    history.replaceState(null, "", address);
  }

  const show = (alive) => {
    if (!liveness) return;
    liveness.hidden = false;
    liveness.className = alive ? "liveness good" : "liveness bad";
    liveness.textContent = alive ? "Live" : "Not up to date";
  };

  const replace = (old, fresh) => {
    // Nobody's typing is taken away.
    const focus = document.activeElement;
    if (old.contains(focus) && focus.matches("input, textarea, select")) return;
    if (old.innerHTML === fresh.innerHTML) return;
    const said = old.dataset.says;
    const id = old.contains(focus) ? focus.id : "";
    old.replaceWith(document.adoptNode(fresh));
    if (id) document.getElementById(id)?.focus();
    if (news && fresh.dataset.says !== said) news.textContent = fresh.dataset.says ?? "";
  };

  const look = async () => {
    const old = document.querySelector(FIND);
    if (!old) return;
    const signal = AbortSignal.timeout(PATIENCE_MS);
    const answer = await fetch(location.href, { redirect: "manual", cache: "no-store", credentials: "same-origin", signal });
    // The session has ended: loading the page anew leads to the sign-in, and back.
    if (answer.type === "opaqueredirect") return location.reload();
    if (!answer.ok) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector(FIND);
    if (fresh) replace(old, fresh);
  };

  const again = () => {
    const live = document.querySelector(FIND);
    if (!live) return;
    const every = Number(live.dataset.live) || 5;
    setTimeout(step, 1000 * Math.min(SLOWEST_S, every * 2 ** Math.min(failures, 6)));
  };

  const step = async () => {
    // A page that nobody sees is looked at when somebody does.
    if (document.hidden) return document.addEventListener("visibilitychange", step, { once: true });
    try {
      await look();
      failures = 0;
    } catch {
      failures += 1;
    }
    show(failures === 0);
    again();
  };

  if (document.querySelector(FIND)) show(true);
  again();
})();
