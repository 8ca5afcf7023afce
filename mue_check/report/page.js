const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// Figures are gzipped SVG, and share the outlines of their letters. Each is unpacked when it comes near the screen.
const unpack = (text) => new Response(new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
const glyphs = unpack(document.getElementById("glyphs").dataset.packed);
const draw = async (image) => {
  const packed = image.dataset.figure;
  if (!packed) return;
  delete image.dataset.figure;
  const whole = (await unpack(packed)).replace("<defs>", "<defs>" + await glyphs);
  image.src = URL.createObjectURL(new Blob([whole], { type: "image/svg+xml" }));
};
const near = new IntersectionObserver((seen) => {
  for (const { isIntersecting, target } of seen) if (isIntersecting) { near.unobserve(target); draw(target); }
}, { rootMargin: "1000px" });
all("img[data-figure]").forEach((image) => near.observe(image));
addEventListener("beforeprint", () => all("img[data-figure]").forEach(draw));

// A row and its note move and hide together.
const groups = (body) => {
  const found = [];
  for (const row of body.rows) row.className === "note" ? found.at(-1).push(row) : found.push([row]);
  return found;
};

// A click on a header sorts; verdicts by what is worst.
const worst = ["FAIL", "INCONCLUSIVE", "RESIDUAL", "PASS"];
const key = (cell) => {
  const text = cell.textContent.trim();
  const number = parseFloat(text);
  return worst.includes(text) ? worst.indexOf(text) : Number.isNaN(number) ? text : number;
};
const compare = (a, b) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1);
for (const table of all("main table")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  if (body.rows.length < 3 || table.closest(".strip")) continue;
  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const sorted = groups(body).sort((a, b) => (up ? 1 : -1) * compare(key(a[0].cells[at]), key(b[0].cells[at])));
      body.append(...sorted.flat());
    };
  });
}

// The bar filters the rows of all tables, and the axes, by words and by verdict.
const bar = document.querySelector(".tools");
const [words, verdict, count] = ["input", "select", "output"].map((name) => bar.querySelector(name));
bar.hidden = false;
const filter = () => {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (text, its) => wanted.every((word) => text.toLowerCase().includes(word)) && (!verdict.value || its === verdict.value);
  const active = wanted.length > 0 || verdict.value !== "";
  let shown = 0, total = 0;
  for (const strip of all(".strip")) strip.hidden = active && !matches(strip.querySelector(".about").textContent, strip.dataset.verdict);
  for (const scroll of all(".scroll")) {
    if (scroll.closest(".strip")) continue;
    let here = 0;
    for (const rows of groups(scroll.querySelector("tbody"))) {
      const hit = matches(rows.map((row) => row.textContent).join(" "), rows[0].dataset.verdict);
      rows.forEach((row) => { row.hidden = !hit; });
      here += hit;
      total += 1;
    }
    shown += here;
    scroll.hidden = !here;
    const fold = scroll.closest("details");
    if (active && fold && here) fold.open = true;
  }
  count.textContent = active ? `${shown} of ${total} rows` : "";
};
words.oninput = verdict.onchange = filter;

// Where a table fits, its header sticks below the bar; where it does not, it scrolls with its verdicts in sight.
const fit = () => {
  for (const scroll of all(".scroll")) {
    scroll.classList.remove("fits");
    scroll.classList.toggle("fits", scroll.scrollWidth <= scroll.clientWidth + 1);
  }
};
addEventListener("resize", fit);
all("details").forEach((fold) => fold.addEventListener("toggle", fit));
fit();
