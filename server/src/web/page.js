// Keeps a job's page fresh. Without it the page shows what there was when it was loaded.
"use strict";
(() => {
  const log = document.getElementById("log");
  if (!log) return;
  const summary = document.getElementById("summary");
  const follow = document.getElementById("follow");
  const search = document.getElementById("q");
  // Pieces of text in the page; older ones go. A piece is at most this long, so the page stays small whatever comes.
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

  // The line of each kind that has not ended yet: a progress bar stays where it is while lines are printed beside it.
  const unfinished = {};
  for (const kind of ["out", "err"]) unfinished[kind] = [...log.getElementsByClassName(kind)].at(-1);

  // A carriage return begins the line again, as a terminal would have it.
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
    // What would be dropped at once is not drawn.
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
    // In a tab that is not seen nothing is drawn.
    if (waiting.length > 2 * MOST_PIECES) waiting = waiting.slice(-MOST_PIECES);
  });
  // Only what has changed is replaced: the rest stays scrolled, unfolded and selected as it is, and pictures are not loaded again.
  const holdsText = (it) => [...it.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim() !== "");
  function patch(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    const isSame = old.tagName === fresh.tagName && old.id === fresh.id;
    if (!isSame || holdsText(old) || holdsText(fresh) || fresh.childElementCount === 0) {
      old.replaceWith(fresh);
      return;
    }
    // Whether it is unfolded is the reader's choice.
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
    // Nobody loses the place where the keyboard is, or what is being copied.
    const selection = getSelection();
    const isCopied = selection.type === "Range" && summary.contains(selection.anchorNode);
    if (newest === undefined || isCopied) return;
    const active = document.activeElement;
    const focused = summary.contains(active) ? active.closest("[id]") : undefined;
    const isHeading = active.tagName === "SUMMARY";
    if (focused && focused !== active && !isHeading) return;
    // The server escapes what jobs say; it is the same fragment that the page was made of.
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
    // For who listens to the page: its state only, and only when it changes.
    document.getElementById("announced").textContent = `The job is over: ${event.data}`;
    document.title = document.title.replace(/ · \w+ · /, ` · ${event.data} · `);
  });
  // Scrolling up stops following, and the end takes it up again.
  log.addEventListener("scroll", () => {
    follow.checked = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  });
  follow.addEventListener("change", () => { if (follow.checked) log.scrollTop = log.scrollHeight; });
})();
