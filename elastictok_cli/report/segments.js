// The cards of the segments, and the links of the table into the chart.
(() => {
  const { data, $, draw, show, fill, unpack, readRamp, clock, whole, bytes, short } = report;
  const film = $("film"), cards = data.cards;
  const top = Math.max(0, ...cards.map((c) => c.map.top)) || 1;
  const dearest = Math.max(1, ...cards.map((c) => c.tokens / c.frames));
  for (const card of cards) {
    const item = document.createElement("li"), button = document.createElement("button"), pic = document.createElement("span");
    button.type = "button";
    pic.className = "pic";
    pic.style.aspectRatio = `${data.width} / ${data.height}`;
    if (card.picture) {
      const image = document.createElement("img");
      image.src = card.picture; image.alt = `First frame of segment ${card.number}`; image.decoding = "async";
      image.width = card.width; image.height = card.height;
      pic.append(image);
    }
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Keep map of segment ${card.number}: at most ${short(card.map.top)} tokens a cell`);
    card.bytes_ = unpack(card.map.data);
    card.canvas = canvas;
    pic.append(canvas);
    pic.addEventListener("pointermove", (event) => {
      const r = pic.getBoundingClientRect();
      const x = Math.min(card.map.columns - 1, Math.floor(((event.clientX - r.left) / r.width) * card.map.columns));
      const y = Math.min(card.map.rows - 1, Math.floor(((event.clientY - r.top) / r.height) * card.map.rows));
      const value = (card.bytes_[y * card.map.columns + x] / 255) * card.map.top;
      pic.title = `row ${y}, column ${x}: ${short(value)} tokens a cell`;
    });
    const what = document.createElement("span"), bold = document.createElement("b"), bar = document.createElement("span");
    what.className = "what";
    bold.textContent = `${clock(card.start)} – ${clock(card.end)}`;
    bar.className = "bar";
    bar.style.width = `${Math.max(1, (100 * card.tokens) / card.frames / dearest)}%`;
    const quality = card.psnr === null ? "" : ` · ${card.psnr.toFixed(1)} dB`;
    what.append(bold, document.createElement("br"), `${whole(card.tokens / card.frames)} tokens a frame · ${bytes(card.bytes)}${quality}`, bar);
    button.append(pic, what);
    button.addEventListener("click", () => show(card.start, card.end));
    item.append(button);
    film.append(item);
  }
  $("scale-top").textContent = short(top);
  const looks = [...document.querySelectorAll("#looks button")];
  film.dataset.look = looks.length ? "picture" : "heat";
  const scaleShown = () => { $("scale").hidden = film.dataset.look === "picture"; };
  for (const look of looks) look.addEventListener("click", () => {
    film.dataset.look = look.dataset.look;
    for (const other of looks) other.setAttribute("aria-pressed", String(other === look));
    scaleShown();
  });
  scaleShown();
  for (const row of document.querySelectorAll("[data-from]")) row.addEventListener("click", () => show(+row.dataset.from, +row.dataset.to));

  report.paint = () => {
    readRamp();
    for (const card of cards) fill(card.canvas, card.map.columns, card.map.rows, (x, y) => ((card.bytes_[y * card.map.columns + x] / 255) * card.map.top) / top);
    fill(document.querySelector("#scale canvas"), 160, 10, (x) => x / 159);
    draw();
  };
  report.paint();
})();
