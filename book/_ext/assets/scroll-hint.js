// Says in words above a table or a formula that it goes on to the right, and lets the arrow keys scroll it.
(() => {
  "use strict";
  const BOXES = ".bd-article :is(.pst-scrollable-table-container, .output.text_html, div.math)";

  function hint(box) {
    const wide = box.scrollWidth > box.clientWidth + 1;
    const words = box.previousElementSibling?.matches(".book-more") ? box.previousElementSibling : null;
    if (wide && !words) {
      const made = document.createElement("span");
      made.className = "book-more";
      made.textContent = "scroll →";
      made.setAttribute("aria-hidden", "true"); // a screen reader reads all of it anyway
      box.before(made);
      box.tabIndex = 0;
    } else if (!wide && words) {
      words.remove();
      box.removeAttribute("tabindex");
    }
  }

  // Formulas get their width when MathJax has set them.
  window.addEventListener("load", () => {
    const watch = new ResizeObserver((entries) => entries.forEach(({ target }) => hint(target.closest(BOXES))));
    for (const box of document.querySelectorAll(BOXES)) {
      watch.observe(box);
      if (box.firstElementChild) watch.observe(box.firstElementChild);
    }
    window.MathJax?.startup?.promise?.then(() => document.querySelectorAll(BOXES).forEach(hint));
  });
})();
