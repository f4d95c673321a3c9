"use strict";
// Before the first paint: the reader's choice of light or dark, where there is one and storage may be read.
try {
  const kept = localStorage.getItem("colora-theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
} catch {
  // No storage, as in some private windows: the system's preference holds.
}
