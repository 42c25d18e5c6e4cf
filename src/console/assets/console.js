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

  // Where the focus is, in words that hold for the part that comes: what it is, and which one of those it is.
  const placeOf = (old, focus) => {
    const quoted = (name) => `${focus.localName}[${name}="${CSS.escape(focus.getAttribute(name))}"]`;
    const selector = focus.id ? `#${CSS.escape(focus.id)}` : focus.hasAttribute("href") ? quoted("href") : focus.localName;
    return { selector, at: [...old.querySelectorAll(selector)].indexOf(focus) };
  };

  // The same again; where it is gone, the content, so that the next Tab goes on from there and not from the top.
  const focusOn = ({ selector, at }, part) => {
    const same = part.querySelectorAll(selector);
    (same[at] ?? same[same.length - 1] ?? document.getElementById("main"))?.focus({ preventScroll: true });
  };

  const replace = (old, fresh) => {
    // Nobody's typing is taken away.
    const focus = document.activeElement;
    if (old.contains(focus) && focus.matches("input, textarea, select")) return;
    if (old.innerHTML === fresh.innerHTML) return;
    const said = old.dataset.says;
    const place = old !== focus && old.contains(focus) ? placeOf(old, focus) : null;
    // What somebody has opened stays open.
    const opened = [...old.querySelectorAll("details")].map((one) => one.open);
    const part = document.adoptNode(fresh);
    part.querySelectorAll("details").forEach((one, at) => { one.open = opened[at] ?? one.open; });
    old.replaceWith(part);
    if (place) focusOn(place, part);
    if (news && part.dataset.says !== said) news.textContent = part.dataset.says ?? "";
  };

  // Whether something stands on the page that nobody has sent.
  const isTyped = () => [...document.querySelectorAll("input, textarea")].some((one) =>
    one.value !== one.defaultValue || one.checked !== one.defaultChecked);

  const look = async () => {
    const old = document.querySelector(FIND);
    if (!old) return;
    const signal = AbortSignal.timeout(PATIENCE_MS);
    const answer = await fetch(location.href, { redirect: "manual", cache: "no-store", credentials: "same-origin", signal });
    // The session has ended: loading the page anew leads to the sign-in, and back. Not while that would take typing away.
    if (answer.type === "opaqueredirect" && !isTyped()) return location.reload();
    if (!answer.ok) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector(FIND);
    if (!fresh) throw new Error("no live part");
    replace(old, fresh);
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
