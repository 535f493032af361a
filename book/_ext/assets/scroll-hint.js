// Says in words above a table or a formula that it goes on to the right, and lets the arrow keys scroll it. A formula
// within a line, which the theme would cut, is set smaller until it fits.
(() => {
  "use strict";
  const BOXES = ".bd-article :is(.pst-scrollable-table-container, .output.text_html, div.math)";

  const SAID = document.documentElement.lang === "ja" ? "スクロール →" : "scroll →";

  // A formula scrolls beside its number.
  const scroller = (box) => box.querySelector(":scope > mjx-container") || box;

  function hint(box) {
    const moves = scroller(box), wide = moves.scrollWidth > moves.clientWidth + 1;
    const words = box.previousElementSibling?.matches(".book-more") ? box.previousElementSibling : null;
    if (wide && !words) {
      const made = document.createElement("span");
      made.className = "book-more";
      made.textContent = SAID;
      made.setAttribute("aria-hidden", "true"); // a screen reader reads all of it anyway
      box.before(made);
      moves.tabIndex = 0;
    } else if (!wide && words) {
      words.remove();
      if (moves === box) box.removeAttribute("tabindex"); // MathJax gives formulas one of its own
    }
  }

  function fitLine(formula) {
    formula.style.fontSize = "";
    const room = formula.closest("p, li, dd, td, th")?.clientWidth, width = () => formula.getBoundingClientRect().width;
    if (!room) return;
    // Letters come in whole pixels, so a size does not tell the width.
    for (let size = 100; width() > room && size > 50; size -= 5) formula.style.fontSize = `${size - 5}%`;
  }
  const fitLines = () => document.querySelectorAll(".bd-article span.math mjx-container").forEach(fitLine);

  // Formulas get their width when MathJax has set them.
  window.addEventListener("load", () => {
    const watch = new ResizeObserver((entries) => entries.forEach(({ target }) => hint(target.closest(BOXES))));
    for (const box of document.querySelectorAll(BOXES)) {
      watch.observe(box);
      if (box.firstElementChild) watch.observe(box.firstElementChild);
    }
    window.MathJax?.startup?.promise?.then(() => {
      document.querySelectorAll(BOXES).forEach(hint);
      fitLines();
    });
    let timer = 0;
    window.addEventListener("resize", () => {
      clearTimeout(timer);
      timer = setTimeout(fitLines, 150);
    });
  });
})();
