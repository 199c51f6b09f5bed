"use strict";
// All that moves in the report. Without it everything is shown and nothing is lost.
(() => {
  const $ = (id) => document.getElementById(id);
  const root = document.documentElement;

  // Colours: as the system has them, or light, or dark; remembered where the browser lets us.
  const themes = ["auto", "light", "dark"];
  const remember = (name) => { try { localStorage.setItem("icediag-theme", name); } catch { /* a closed browser */ } };
  const remembered = () => { try { return localStorage.getItem("icediag-theme"); } catch { return null; } };
  const setTheme = (name) => {
    root.dataset.theme = name;
    const words = { auto: "as the system has them", light: "light", dark: "dark" };
    $("theme").setAttribute("aria-label", `${name}: colours ${words[name]}`);
    $("theme").lastElementChild.textContent = name;
  };
  setTheme(themes.includes(remembered()) ? remembered() : "auto");
  $("theme").addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length];
    setTheme(next);
    remember(next);
  });
  $("print").addEventListener("click", () => window.print());
  $("save").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([$("diagnosis").textContent], { type: "application/json" }));
    link.download = "diagnosis.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  for (const id of ["theme", "print", "save"]) $(id).hidden = false;

  // Findings: by words and by severity.
  const filters = $("filters");
  if (filters) {
    const findings = [...document.querySelectorAll(".finding")];
    const words = new Map(findings.map((one) => [one, one.textContent.toLowerCase()]));
    const apply = () => {
      const wanted = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
      const severities = new Set([...filters.querySelectorAll("[name=severity]:checked")].map((box) => box.value));
      let shown = 0;
      for (const one of findings) {
        const fits = severities.has(one.dataset.severity) && wanted.every((word) => words.get(one).includes(word));
        one.hidden = !fits;
        shown += fits;
      }
      for (const group of document.querySelectorAll(".consequences, .group")) {
        group.hidden = !group.querySelector(".finding:not([hidden])");
      }
      $("shown").textContent = `${shown} of ${findings.length} shown`;
    };
    filters.hidden = false;
    filters.addEventListener("input", apply);
    filters.addEventListener("submit", (event) => event.preventDefault());
    apply();
  }

  // The flow: one stage's details at a time, chosen by click, Enter, arrow keys or a link.
  const details = $("details");
  if (details) {
    const stages = [...details.children];
    const links = [...document.querySelectorAll("a.stage")];
    const show = (id, focus) => {
      const stage = stages.find((one) => one.id === id);
      if (!stage) return false;
      for (const one of stages) one.hidden = one !== stage;
      for (const link of links) {
        const chosen = link.getAttribute("href") === `#${id}`;
        link.classList.toggle("chosen", chosen);
        if (chosen) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
      }
      if (focus) { stage.focus({ preventScroll: true }); stage.scrollIntoView({ block: "nearest" }); }
      return true;
    };
    root.classList.add("scripted");
    const worst = document.querySelector(".finding .at a[href^='#stage-']") ||
      links.find((link) => link.querySelector(".badge")) || links[0];
    if (worst) show(worst.getAttribute("href").slice(1), false);
    document.addEventListener("click", (event) => {
      const link = event.target.closest && event.target.closest("a[href^='#stage-']");
      if (link && show(link.getAttribute("href").slice(1), true)) event.preventDefault();
    });
    document.addEventListener("keydown", (event) => {
      const at = links.indexOf(document.activeElement);
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (at < 0 || !step) return;
      const next = links[Math.min(links.length - 1, Math.max(0, at + step))];
      event.preventDefault();
      next.focus();
      show(next.getAttribute("href").slice(1), false);
    });
    const follow = () => show(location.hash.slice(1), true);
    window.addEventListener("hashchange", follow);
    follow();
  }

  // What scrolls sideways is reached by the keyboard too.
  const reach = () => {
    for (const box of document.querySelectorAll(".scroll, .flow-scroll")) {
      const title = box.closest("section")?.querySelector("h2, h3")?.textContent.trim();
      if (box.scrollWidth > box.clientWidth) {
        box.tabIndex = 0;
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", title || "table");
      } else box.removeAttribute("tabindex");
    }
  };
  reach();
  window.addEventListener("resize", reach);

  // On paper everything is open, and each stage with a finding has its table.
  let closed = [], unseen = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    unseen = [...document.querySelectorAll(".stage-details[hidden]:is(.error, .warning, .note)")];
    for (const one of closed) one.open = true;
    for (const one of unseen) one.hidden = false;
  });
  window.addEventListener("afterprint", () => {
    for (const one of closed) one.open = false;
    for (const one of unseen) one.hidden = true;
  });
})();
