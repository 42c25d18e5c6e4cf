// Keeps what a page shows up to date: asks for the same page again, and puts its live part in the place of the old one.
// Without this script, pages are as true as they were when they were loaded, and everything on them works.
"use strict";
(() => {
  const FIND = "[data-live]";
  const SLOWEST_S = 60;
  const PATIENCE_MS = 15_000;
  // How long what has come waits for somebody who is busy with what is there.
  const STILL_MS = 30_000;
  // A finger's click comes a little after the finger is up.
  const CLICK_MS = 300;
  const news = document.getElementById("news");
  const liveness = document.getElementById("liveness");
  const overdue = document.getElementById("overdue");
  let failures = 0;
  let trueAt = new Date();

  // The mark of the way here over another site's link says nothing any more.
  const address = new URL(location.href);
  if (address.searchParams.has("continued")) {
    address.searchParams.delete("continued");
    history.replaceState(null, "", address);
  }

  const say = (text) => { if (news) news.textContent = text; };

  // Whether the page is as things are; where it is not, why. A change of that is said once.
  const show = (trouble) => {
    if (!liveness || !overdue) return;
    liveness.hidden = false;
    liveness.className = trouble ? "liveness bad" : "liveness good";
    liveness.textContent = trouble ? "Not up to date" : "Live";
    const told = trouble && `Not up to date since ${trueAt.toISOString().slice(11, 16)} UTC: ${trouble}. Trying again.`;
    if (overdue.hidden === Boolean(trouble)) say(told || "Up to date again.");
    overdue.textContent = told;
    overdue.hidden = !trouble;
    document.documentElement.classList.toggle("is-overdue", Boolean(trouble));
  };

  // A click is one only where it went down and came up on the same thing in the same place: while anything is pressed, the page
  // stands still. So it does while somebody marks a text of it, to copy it.
  let pressed = false;
  let letGo;
  const press = () => { clearTimeout(letGo); pressed = true; };
  const release = () => {
    clearTimeout(letGo);
    letGo = setTimeout(() => { pressed = false; if (late) change(late.deed); }, CLICK_MS);
  };
  for (const down of ["pointerdown", "keydown"]) addEventListener(down, press, true);
  for (const up of ["pointerup", "pointercancel", "keyup", "blur"]) addEventListener(up, release, true);

  const isMarked = () => {
    const live = document.querySelector(FIND);
    const marked = getSelection();
    return Boolean(live && marked && !marked.isCollapsed && marked.containsNode(live, true));
  };

  // The newest of what waits, and since when something does.
  let late = null;

  // Changes the page, or has the change wait while the page stands still; but not for ever: of a key that came up elsewhere nobody
  // hears, and a text may stay marked all night.
  const change = (deed) => {
    const since = late?.since ?? performance.now();
    if ((pressed || isMarked()) && performance.now() - since < STILL_MS) {
      late = { deed, since };
      return;
    }
    pressed = false;
    late = null;
    deed();
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

  const replace = (fresh) => {
    const old = document.querySelector(FIND);
    if (!old) return;
    // Nobody's typing is taken away.
    const focus = document.activeElement;
    if (old.contains(focus) && focus.matches("input, textarea, select")) return;
    if (old.innerHTML === fresh.innerHTML) return;
    const said = old.dataset.says;
    const place = old !== focus && old.contains(focus) ? placeOf(old, focus) : null;
    // What somebody has opened stays open, and where a table was moved to is where it stays.
    const opened = [...old.querySelectorAll("details")].map((one) => one.open);
    const moved = [...old.querySelectorAll(".table")].map((one) => one.scrollLeft);
    const part = document.adoptNode(fresh);
    part.querySelectorAll("details").forEach((one, at) => { one.open = opened[at] ?? one.open; });
    old.replaceWith(part);
    part.querySelectorAll(".table").forEach((one, at) => { one.scrollLeft = moved[at] ?? 0; });
    if (place) focusOn(place, part);
    if (part.dataset.says !== said) say(part.dataset.says ?? "");
  };

  // Whether something stands on the page that nobody has sent.
  const isTyped = () => [...document.querySelectorAll("input, textarea")].some((one) =>
    one.value !== one.defaultValue || one.checked !== one.defaultChecked);

  // The live part as it is now, or what is in the way of it; nothing where there is no part, or another page comes.
  const look = async () => {
    if (!document.querySelector(FIND)) return {};
    try {
      const signal = AbortSignal.timeout(PATIENCE_MS);
      const answer = await fetch(location.href, { redirect: "manual", cache: "no-store", credentials: "same-origin", signal });
      if (answer.type === "opaqueredirect") {
        // The session has ended: loading the page anew leads to the sign-in, and back. Not while that would take typing away.
        if (isTyped()) return { trouble: "you are signed out" };
        location.reload();
        return {};
      }
      if (!answer.ok) return { trouble: `the worker answers with an error (${answer.status})` };
      const part = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector(FIND);
      return part ? { part } : { trouble: "the page is another one now" };
    } catch {
      return { trouble: "the worker does not answer" };
    }
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
    const { part, trouble } = await look();
    failures = trouble ? failures + 1 : 0;
    if (part) trueAt = new Date();
    change(() => {
      show(trouble ?? "");
      if (part) replace(part);
    });
    again();
  };

  if (document.querySelector(FIND)) show("");
  again();
})();
