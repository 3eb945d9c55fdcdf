
"use strict";
(() => {
  const find = (selector, root = document) => root.querySelector(selector);
  const findAll = (selector, root = document) => [...root.querySelectorAll(selector)];
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim().split(/\s+/).map(Number);
  const COLOURS = { for: colour("for"), against: colour("against"), plain: colour("plain") };
  const ROUGH = "do not read amounts";
  const tools = { search: find("#search"), method: find("#method"), opacity: find("#opacity"), patches: find("#patches") };

  // Numbers as the page holds them: int8, of which 127 stands for the scale.
  const numbers = (text) => Int8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toPrecision(2);

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // The colour of a share in [-1, 1] of the scale: its hue by the sign, from weak to strong; the opacity is its size.
  function hue(share, isSigned = true) {
    const ramp = COLOURS[isSigned ? (share < 0 ? "against" : "for") : "plain"];
    const size = Math.abs(share);
    return [0, 1, 2].map((part) => Math.round(ramp[part] + (ramp[part + 3] - ramp[part]) * size));
  }

  // A picture of the grid, one pixel a patch.
  function painted(values, rows, cols, isSigned) {
    const canvas = element("canvas", { width: cols, height: rows });
    const pixels = new ImageData(cols, rows);
    values.forEach((value, place) => {
      pixels.data.set([...hue(value / 127, isSigned), Math.round(255 * Math.abs(value) / 127)], 4 * place);
    });
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return canvas;
  }

  // A map with its outermost patches once more, all around it, so that it is smooth to its edge.
  function widened({ values, rows, cols }) {
    const inside = (place, length) => Math.min(Math.max(place - 1, 0), length - 1);
    const [high, wide] = [rows + 2, cols + 2];
    const cells = Float32Array.from({ length: high * wide }, (_, place) =>
      values[inside(Math.floor(place / wide), rows) * cols + inside(place % wide, cols)]);
    return { values: cells, rows: high, cols: wide };
  }

  // Greys what a crop hid, beyond a dark line and a light one, as the overlays of gmar_hf.plotting; the box is in pixels.
  function markHidden(context, [left, top, right, bottom], width, opacity) {
    const { canvas } = context;
    if (left <= 0 && top <= 0 && right >= canvas.width && bottom >= canvas.height) return;
    for (const [inner, outer, colour] of [[0, Infinity, `rgb(160 160 160 / ${0.45 * opacity})`], [0, width, "rgb(60 60 60)"], [width, 2 * width, "white"]]) {
      const frame = new Path2D();
      for (const by of [outer, inner]) {
        const [x, y] = [Math.max(left - by, 0), Math.max(top - by, 0)];
        frame.rect(x, y, Math.min(right + by, canvas.width) - x, Math.min(bottom + by, canvas.height) - y);
      }
      context.fillStyle = colour;
      context.fill(frame, "evenodd");
    }
  }

  // Fine light stripes through what speaks against, as strong as it is: in grey, too, it looks different.
  function striped(context, negative, ...place) {
    const { width, height } = context.canvas;
    const tile = element("canvas", { width: 12, height: 12 });
    const pen = tile.getContext("2d");
    pen.strokeStyle = "rgb(240 246 255)";
    pen.lineWidth = 2;
    for (const shift of [-12, 0, 12]) pen.stroke(new Path2D(`M ${shift - 2} 14 L ${shift + 14} -2`));
    const layer = element("canvas", { width, height }).getContext("2d");
    layer.imageSmoothingEnabled = context.imageSmoothingEnabled;
    layer.drawImage(negative, ...place);
    layer.globalCompositeOperation = "source-in";
    layer.fillStyle = layer.createPattern(tile, "repeat");
    layer.fillRect(0, 0, width, height);
    context.drawImage(layer.canvas, 0, 0);
  }

  class Explained {
    constructor(article) {
      this.article = article;
      this.isNear = false;
      this.photo = find("img", article);
      this.canvas = find("canvas", article);
      // As high as the window lets it be seen whole.
      this.photo.closest("figure").style.maxWidth = `max(14rem, ${68 * this.photo.getAttribute("width") / this.photo.getAttribute("height")}vh)`;
      this.label = 0;
      this.head = null;
      this.buttons = findAll(".labels button", article);
      this.buttons.forEach((button, place) => button.addEventListener("click", () => this.choose(place)));
      this.matrix = find(".heads", article);
      this.matrix.addEventListener("keydown", (event) => this.press(event));
      this.back = find(".back", article);
      this.back.addEventListener("click", () => {
        const chosen = findAll("button", this.matrix)[this.head];
        this.look(null);
        chosen?.focus();  // the button that had it is gone
      });
    }

    get data() {
      return (this.parsed ??= JSON.parse(find("script", this.article).textContent));
    }

    // Only what is near the window is drawn, and what is not gives its memory back: there may be hundreds.
    approach(isNear) {
      this.isNear = isNear;
      if (isNear) this.draw();
      else this.canvas.width = this.canvas.height = 0;
    }

    // The chosen method's result for the label; the first there is, where an image was not explained by it.
    get result() {
      const ofLabel = this.data.maps.filter((map) => map.label === this.label);
      return ofLabel.find((map) => map.method === tools.method.value) ?? ofLabel[0];
    }

    get heads() {
      return this.data.heads[this.result.heads] ?? null;
    }

    choose(label) {
      this.label = label;
      this.buttons.forEach((button, place) => button.setAttribute("aria-pressed", place === label));
      this.draw();
    }

    look(head) {
      this.head = head;
      this.draw();
    }

    draw() {
      if (!this.isNear) return;
      if (!this.heads) this.head = null;
      this.back.hidden = this.head === null;
      this.drawMatrix();
      this.drawMap();
    }

    drawMap() {
      const { result, heads, head, data, canvas } = this;
      const whole = { ...result, values: numbers(result.values) };
      if (head !== null) {
        const size = heads.rows * heads.cols;
        // On the scale of the strongest head's map, so that a weak head is pale.
        const scale = Math.max(...heads.scales);
        const share = heads.scales[head] / (scale || 1);
        const values = Float32Array.from(numbers(heads.values).subarray(head * size, (head + 1) * size), (value) => share * value);
        Object.assign(whole, { rows: heads.rows, cols: heads.cols, scale, values });
      }
      const isSigned = head !== null || whole.signed;
      const opacity = tools.opacity.value / 100;
      // Of the photograph's own size, or so many times as large that a screen shows it sharp.
      const [width, height] = ["width", "height"].map((side) => Number(this.photo.getAttribute(side)));
      const times = Math.ceil(960 / width);
      [canvas.width, canvas.height] = [times * width, times * height];
      const context = canvas.getContext("2d");
      const box = data.box.map((share, edge) => Math.round(share * (edge % 2 ? canvas.height : canvas.width)));
      const [left, top, right, bottom] = box;
      const patch = [(right - left) / whole.cols, (bottom - top) / whole.rows];
      const { values, rows, cols } = widened(whole);
      markHidden(context, box, Math.max(1, Math.round(Math.min(canvas.width, canvas.height) / 300)), opacity);
      // A map ends where what the model sees ends.
      context.beginPath();
      context.rect(left, top, right - left, bottom - top);
      context.clip();
      context.globalAlpha = opacity;
      context.imageSmoothingEnabled = !tools.patches.checked;
      context.imageSmoothingQuality = "high";
      const place = [left - patch[0], top - patch[1], cols * patch[0], rows * patch[1]];
      context.drawImage(painted(values, rows, cols, isSigned), ...place);
      if (isSigned) striped(context, painted(values.map((value) => Math.min(value, 0)), rows, cols, true), ...place);
      this.photo.style.filter = `saturate(${1 - 0.8 * opacity})`;
      this.say(whole, isSigned);
    }

    // The legend below the picture, and in words what is seen.
    say(map, isSigned) {
      const { heads, head, data, article } = this;
      const mark = (kind) => {
        const square = element("i");
        const full = `rgb(${COLOURS[kind].slice(3).join(" ")})`;
        square.style.background = kind === "against" ? `repeating-linear-gradient(135deg, ${full} 0 4px, rgb(240 246 255) 4px 5px)` : full;
        return square;
      };
      const sides = data.sides[this.label];
      const entry = (kind, text) => element("span", {}, mark(kind), element("bdi", { textContent: text }));
      const unit = head !== null ? " logits" : map.unit ? ` ${map.unit}` : "";
      const amount = `full colour from ${isSigned ? "±" : ""}${map.scale.toPrecision(2)}${unit} a patch`;
      const scale = element("span", { textContent: map.amounts ? amount : ROUGH });
      const entries = isSigned ? [entry("for", sides[0]), entry("against", sides[1])] : [entry("plain", "looks here")];
      find(".legend", article).replaceChildren(...entries, scale);
      const said = [];
      if (head !== null) {
        const value = heads.contributions[head];
        const isFaint = Math.abs(value) < 0.05 * this.largest;
        said.push(`${this.name(head)} alone: it ${value < 0 ? "takes" : "adds"} ${Math.abs(value).toPrecision(2)} logits${isFaint ? ", next to nothing beside the strongest" : ""}.`);
        if (heads.coarseness > 1) said.push(`Means over ${heads.coarseness} by ${heads.coarseness} patches.`);
      } else said.push(...[map.account, map.note].filter(Boolean));
      find(".said", article).textContent = said.join(" ");
    }

    get largest() {
      return Math.max(...this.heads.contributions.map(Math.abs)) || 1;
    }

    name(head) {
      return `Layer ${Math.floor(head / this.heads.heads)}, head ${head % this.heads.heads}`;
    }

    // The title of the matrix, and its strongest heads with their numbers: a telephone shows no titles of squares.
    nameHeads() {
      const { heads, largest, article } = this;
      const title = this.result.on_path ? "What each head added while attention was switched on" : "What the label would lose without a head, to first order";
      const { amounts } = this.result;
      find(".largest", article).firstChild.data = `${title}; ${amounts ? "full colour at " : ""}`;
      find(".largest b", article).textContent = amounts ? `±${largest.toPrecision(2)} logits` : ROUGH;
      const order = [...heads.contributions.keys()].filter((place) => heads.contributions[place] !== null);
      order.sort((one, other) => Math.abs(heads.contributions[other]) - Math.abs(heads.contributions[one]));
      const strongest = order.slice(0, 3).map((place) => `${this.name(place).toLowerCase()}: ${amounts ? signed(heads.contributions[place]) : signed(heads.contributions[place])[0]}`);
      find(".strongest", article).textContent = `The strongest: ${strongest.join("; ")}.`;
    }

    drawMatrix() {
      const { heads, matrix } = this;
      for (const name of [".largest", ".strongest"]) find(name, this.article).hidden = !heads;
      if (!heads) {
        delete matrix.dataset.of;
        return matrix.replaceChildren();
      }
      const count = heads.layers * heads.heads;
      if (matrix.dataset.of !== `${heads.layers} ${heads.heads}`) {
        matrix.dataset.of = `${heads.layers} ${heads.heads}`;
        matrix.style.gridTemplateColumns = `2.2rem repeat(${heads.heads}, minmax(0, 3.6rem))`;
        const cells = [element("span", { textContent: "layer" }), ...Array.from({ length: heads.heads }, (_, head) => element("span", { textContent: head }))];
        for (let place = 0; place < count; place++) {
          if (place % heads.heads === 0) cells.push(element("span", { textContent: place / heads.heads }));
          const button = element("button", { type: "button" });
          button.addEventListener("click", () => this.look(this.head === place ? null : place));
          cells.push(button);
        }
        matrix.replaceChildren(...cells);
      }
      const { largest } = this;
      this.nameHeads();
      findAll("button", matrix).forEach((button, place) => {
        const value = heads.contributions[place];
        button.disabled = value === null;  // of a head that this layer has not
        button.style.visibility = button.disabled ? "hidden" : "";
        if (button.disabled) return;
        button.style.background = `rgb(${hue(value / largest).join(" ")} / ${Math.abs(value) / largest})`;
        button.style.color = Math.abs(value) > 0.6 * largest ? "white" : "";
        button.textContent = value / largest < -0.1 ? "−" : "";  // the sign, for those who see no colours
        button.title = `${this.name(place).toLowerCase()}: ${signed(value)} logits`;
        button.setAttribute("aria-label", button.title);
        button.setAttribute("aria-pressed", place === this.head);
        button.tabIndex = place === (this.head ?? 0) ? 0 : -1;
      });
    }

    // From head to head by the arrows, to the row's ends by Home and End, back to the whole map by Escape.
    press(event) {
      const buttons = findAll("button", this.matrix);
      const place = buttons.indexOf(document.activeElement);
      const width = this.heads.heads;
      const first = place - place % width;
      // Where the next head goes by an arrow, past those that a layer has not.
      const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -width, ArrowDown: width };
      const ends = { Home: [first, 1], End: [first + width - 1, -1] };
      let [next, step] = ends[event.key] ?? [place + steps[event.key], steps[event.key]];
      while (buttons[next]?.disabled) next += step;
      if (event.key === "Escape") this.look(null);
      else if (place >= 0 && buttons[next]) {
        this.look(next);
        buttons[next].focus();
      } else return;
      event.preventDefault();
    }
  }

  const articles = findAll("article");
  const explained = new Map(articles.map((article) => [article, new Explained(article)]));
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) explained.get(entry.target).approach(entry.isIntersecting);
  }, { rootMargin: "600px" });

  function search() {
    const wanted = tools.search.value.trim().toLocaleLowerCase();
    const holds = (node) => node.textContent.toLocaleLowerCase().includes(wanted);
    let found = 0;
    for (const article of articles) {
      const place = wanted ? findAll(".labels bdi", article).findIndex(holds) : -1;
      article.hidden = Boolean(wanted) && place < 0 && !holds(find("h2 bdi", article));
      if (!article.hidden) found += 1;
      if (place >= 0) explained.get(article).choose(place);
    }
    find("#found").textContent = `${found} of ${articles.length} images`;
  }

  const methods = [...new Set(articles.flatMap((article) => JSON.parse(article.dataset.methods)))];
  tools.method.replaceChildren(...methods.map((method) => element("option", { value: method, textContent: method })));
  if (methods.includes("recommended")) tools.method.value = "recommended";
  const redraw = () => explained.forEach((one) => one.draw());
  for (const tool of [tools.opacity, tools.patches]) tool.addEventListener("input", redraw);
  // Another map is looked at whole: a head's would stay in the colours of for and against.
  tools.method.addEventListener("input", () => explained.forEach((one) => one.look(null)));
  tools.search.addEventListener("input", search);
  find(".tools").addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("beforeprint", () => explained.forEach((one) => one.approach(true)));
  search();
  articles.forEach((article) => watcher.observe(article));
})();
