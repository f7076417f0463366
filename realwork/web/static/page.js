// Keyboard, long lists, following a run. Everything else works without.
"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Light and dark
  function switchTheme() {
    const dark = document.documentElement.dataset.theme
      ? document.documentElement.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("realwork-theme", document.documentElement.dataset.theme); } catch { /* nothing is kept */ }
    window.realworkCharts.draw();
  }

  // A long list: chunks of rows, filled when they come near, emptied when they are far.
  let chunks = null;
  function openList() {
    chunks?.disconnect();
    chunks = null;
    const list = $("[data-list]");
    if (!list) return;
    const count = Number(list.dataset.count), size = Number(list.dataset.chunk);
    const first = $("tbody", list);
    const height = first.rows.length ? first.getBoundingClientRect().height / first.rows.length : 36;
    const known = new Map([[0, first.innerHTML]]);
    const wanted = new Set([0]);
    const empty = (body) => {
      const number = Number(body.dataset.chunkNumber);
      const row = document.createElement("tr");
      row.className = "gap";
      row.append(document.createElement("td"));
      row.style.height = `${height * Math.min(size, count - number * size)}px`;
      body.replaceChildren(row);
      body.setAttribute("aria-hidden", "true");
    };
    const show = (body, html) => {
      body.innerHTML = html;
      body.removeAttribute("aria-hidden");
    };
    const fill = async (body) => {
      const number = Number(body.dataset.chunkNumber);
      if (!known.has(number)) {
        const url = new URL(list.dataset.list, location);
        url.searchParams.set("begin", number * size);
        const answer = await fetch(url);
        if (!answer.ok) return;
        known.set(number, await answer.text());
        if (known.size > 50) known.delete(known.keys().next().value);
      }
      if (wanted.has(number) && known.has(number)) show(body, known.get(number));
    };
    for (let number = 1; number * size < count; number++) {
      const body = document.createElement("tbody");
      body.dataset.chunkNumber = number;
      empty(body);
      list.append(body);
    }
    chunks = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const number = Number(target.dataset.chunkNumber);
        if (isIntersecting) { wanted.add(number); fill(target); }
        else if (wanted.delete(number) && !target.contains(document.activeElement)) empty(target);
      }
    }, { rootMargin: "1200px" });
    all("tbody", list).forEach((body) => chunks.observe(body));
  }

  // What j and k go through
  const STOPS = ".target, a.row";
  const stops = () => all(STOPS).filter((each) => each.getClientRects().length);
  const chosen = () => document.activeElement?.closest(STOPS);

  function reveal(element) {
    for (let each = element; each; each = each.parentElement) if (each.tagName === "DETAILS") each.open = true;
  }
  function choose(element) {
    if (!element) return;
    if (element.classList.contains("target")) {
      reveal(element);
      history.replaceState(null, "", `#${element.id}`);
      mark();
    }
    element.focus({ preventScroll: true });
    const tall = element.getBoundingClientRect().height > innerHeight * 0.6;
    element.scrollIntoView({ block: element.matches("a.row") ? "nearest" : tall ? "start" : "center" });
  }
  function move(by) {
    const there = stops();
    const at = there.indexOf(chosen());
    if (at >= 0) return choose(there[at + by]);
    const below = there.findIndex((each) => each.getBoundingClientRect().top > 60);
    choose(there[by > 0 ? Math.max(below, 0) : Math.max(below - 1, 0)]);
  }
  function mark() {
    all(".outline a[aria-current]").forEach((each) => each.removeAttribute("aria-current"));
    const link = all(".outline a").find((each) => each.hash === location.hash)
      || (location.hash.startsWith("#test-") && all(".outline a").find((each) => each.hash === "#tests"));
    if (!link) return;
    link.setAttribute("aria-current", "true");
    link.scrollIntoView({ block: "nearest" });
  }
  function toTarget() {
    const element = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (element) { reveal(element); element.focus({ preventScroll: true }); element.scrollIntoView(); }
    mark();
  }
  function nextFailing() {
    const failing = all(".test.bad");
    const cases = failing.filter((each) => each.classList.contains("case"));
    const there = cases.length ? cases : failing;
    choose(there[(there.indexOf(chosen()) + 1) % there.length]);
  }
  function fold() {
    const element = chosen() || document;
    const details = element.tagName === "DETAILS" ? [element] : all("details", element);
    const open = details.some((each) => each.open);
    details.forEach((each) => { each.open = !open; });
  }
  const foldAll = (open) => all("main details:not(.hint)").forEach((each) => { each.open = open; });
  const go = (address) => { if (address) location.assign(address); };

  const KEYS = {
    j: () => move(1), k: () => move(-1), f: nextFailing, o: fold, e: () => foldAll(true), c: () => foldAll(false),
    t: switchTheme, "?": help, u: () => go(document.body.dataset.up),
    "]": () => go(document.body.dataset.after), "[": () => go(document.body.dataset.before),
    "/": () => { const field = $("#filter"); if (field) { field.focus(); field.select(); } else go($(".tabs a:last-child")?.href); },
  };
  function help() {
    const dialog = $("dialog.help");
    if (dialog.open) dialog.close(); else dialog.showModal();
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    const arrow = { ArrowDown: "j", ArrowUp: "k" }[event.key];
    if (arrow && !chosen()) return;
    const act = KEYS[arrow || event.key];
    if (!act || ($("dialog[open]") && event.key !== "?")) return;
    event.preventDefault();
    act();
  });
  document.addEventListener("click", (event) => {
    const action = event.target.closest("[data-action]")?.dataset.action;
    if (action === "theme") switchTheme();
    if (action === "help") help();
  });

  // A run that goes on: when its version is another one, the page is brought here again and its middle is replaced.
  async function follow() {
    if (document.hidden || !("live" in document.body.dataset)) return;
    const answer = await fetch(document.body.dataset.versionAt);
    if (!answer.ok || (await answer.json()).version === document.body.dataset.version) return;
    const page = new DOMParser().parseFromString(await (await fetch(location)).text(), "text/html");
    const fresh = $("main", page), here = $("main");
    if (!fresh || here.contains(document.activeElement) && document.activeElement.closest("input, select")) return;
    const open = new Map(all("details[id]", here).map((each) => [each.id, each.open]));
    const at = document.activeElement?.id, href = document.activeElement?.getAttribute?.("href");
    const plots = all("[data-chart]", here);
    all("[data-chart]", fresh).forEach((each, place) => {
      if (!plots[place]) return;
      plots[place].dataset.chart = each.dataset.chart;
      plots[place].setAttribute("aria-label", each.getAttribute("aria-label"));
      each.replaceWith(plots[place]);
    });
    const y = scrollY;
    here.replaceChildren(...fresh.childNodes);
    for (const [id, was] of open) { const each = document.getElementById(id); if (each) each.open = was; }
    for (const name of Object.keys(document.body.dataset)) delete document.body.dataset[name];
    Object.assign(document.body.dataset, page.body.dataset);
    $(".tools .live")?.remove();
    const live = $(".tools .live", page);
    if (live) $(".tools").prepend(live);
    openList();
    scrollTo(0, y);
    if (at) document.getElementById(at)?.focus({ preventScroll: true });
    else if (href) all("main a").find((each) => each.getAttribute("href") === href)?.focus({ preventScroll: true });
    mark();
    window.realworkCharts.load();
    $("#status").textContent = "The page has new rows.";
  }
  const wait = () => setTimeout(() => follow().catch(() => {}).finally(wait), 2000);

  openList();
  toTarget();
  addEventListener("hashchange", toTarget);
  wait();
})();
