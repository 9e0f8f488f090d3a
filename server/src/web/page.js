// Live updates of a job's page. Without this script the page shows the state at its load.
"use strict";
(() => {
  const log = document.getElementById("log");
  if (!log) return;
  const summary = document.getElementById("summary");
  const follow = document.getElementById("follow");
  const search = document.getElementById("q");
  // Maximum number of pieces of text; the oldest are removed. The length of a piece is bounded, so the page stays
  // small.
  const MOST_PIECES = 4000;
  const MOST_CHARACTERS = 4000;

  const matches = (text) => search?.value && text.toLowerCase().includes(search.value.toLowerCase());

  function show(piece) {
    if (matches(piece.textContent)) {
      const marked = document.createElement("mark");
      marked.textContent = piece.textContent;
      piece.replaceChildren(marked);
    } else if (piece.querySelector("mark")) {
      piece.textContent = piece.textContent;
    }
  }

  // The unfinished line of each kind: a progress bar stays in place while other lines are printed.
  const unfinished = {};
  for (const kind of ["out", "err"]) unfinished[kind] = [...log.getElementsByClassName(kind)].at(-1);

  // A carriage return restarts the line, as in a terminal.
  function append(kind, text) {
    for (const part of text.split(/(?<=\n)/)) {
      let piece = unfinished[kind];
      if (piece && (piece.textContent.endsWith("\n") || !piece.isConnected)) piece = undefined;
      let line = (piece ? piece.textContent : "") + part;
      const body = line.endsWith("\n") ? line.slice(0, -1) : line;
      const again = body.replace(/\r$/, "").lastIndexOf("\r");
      if (again >= 0) line = line.slice(again + 1);
      if (line.length > MOST_CHARACTERS) line = line.slice(0, MOST_CHARACTERS) + " …\n";
      if (!piece) {
        piece = document.createElement("span");
        piece.className = kind;
        log.append(piece);
      }
      piece.textContent = line;
      show(piece);
      unfinished[kind] = kind === "note" ? undefined : piece;
    }
  }

  let waiting = [];
  function flush() {
    const atEnd = follow.checked;
    // Lines over the limit are not drawn.
    let from = waiting.length;
    for (let lines = 0; from > 0 && lines < MOST_PIECES; from--) lines += waiting[from - 1][1].split("\n").length;
    for (const [kind, text] of waiting.slice(from)) append(kind, text);
    waiting = [];
    while (log.childElementCount > MOST_PIECES) log.firstElementChild.remove();
    if (atEnd) log.scrollTop = log.scrollHeight;
  }

  search?.addEventListener("input", () => { for (const piece of log.children) show(piece); });
  log.scrollTop = log.scrollHeight;
  if (!log.dataset.live) return;
  for (const it of document.querySelectorAll(".script-only")) it.hidden = false;
  const source = new EventSource(log.dataset.live);
  source.addEventListener("log", (event) => {
    if (waiting.length === 0) requestAnimationFrame(flush);
    waiting.push(...JSON.parse(event.data));
    // A hidden tab draws nothing.
    if (waiting.length > 2 * MOST_PIECES) waiting = waiting.slice(-MOST_PIECES);
  });
  // Only changed parts are replaced: the others keep their scroll position, folding and selection, and pictures are
  // not loaded again.
  const holdsText = (it) => [...it.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim() !== "");
  function patch(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    const isSame = old.tagName === fresh.tagName && old.id === fresh.id;
    if (!isSame || holdsText(old) || holdsText(fresh) || fresh.childElementCount === 0) {
      old.replaceWith(fresh);
      return;
    }
    // The reader's folding stays.
    for (const name of fresh.getAttributeNames()) if (name !== "open") old.setAttribute(name, fresh.getAttribute(name));
    patchAll(old, fresh);
  }
  function patchAll(old, fresh) {
    const [before, after] = [[...old.children], [...fresh.children]];
    for (const [at, it] of after.entries()) at < before.length ? patch(before[at], it) : old.append(it);
    for (const it of before.slice(after.length)) it.remove();
  }
  let newest;
  function renew() {
    // Keeps the focus and the selection.
    const selection = getSelection();
    const isCopied = selection.type === "Range" && summary.contains(selection.anchorNode);
    if (newest === undefined || isCopied) return;
    const active = document.activeElement;
    const focused = summary.contains(active) ? active.closest("[id]") : undefined;
    const isHeading = active.tagName === "SUMMARY";
    if (focused && focused !== active && !isHeading) return;
    // The server escapes all text of jobs; the page was made of the same fragment.
    const fragment = document.createElement("template");
    fragment.innerHTML = newest;
    newest = undefined;
    patchAll(summary, fragment.content);
    const again = focused && document.getElementById(focused.id);
    (isHeading ? again?.querySelector("summary") : again)?.focus({ preventScroll: true });
  }
  source.addEventListener("summary", (event) => {
    newest = event.data;
    renew();
  });
  summary.addEventListener("focusout", () => setTimeout(renew));
  document.addEventListener("selectionchange", renew);
  source.addEventListener("end", (event) => {
    source.close();
    // For screen readers: only the state, and only when it changes.
    document.getElementById("announced").textContent = `The job is over: ${event.data}`;
    document.title = document.title.replace(/ · \w+ · /, ` · ${event.data} · `);
  });
  // Scrolling up stops following, scrolling to the end resumes it.
  log.addEventListener("scroll", () => {
    follow.checked = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  });
  follow.addEventListener("change", () => { if (follow.checked) log.scrollTop = log.scrollHeight; });
})();
