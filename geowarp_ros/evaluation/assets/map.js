"use strict";
// A map on a canvas, in metres east and north: drag, wheel, pinch, keys and buttons. What is drawn is its owner's.

const EARTH_M = 6378137;
const ROUND_M = [1, 2, 5];

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text; // never as HTML: names of files are anybody's
  return made;
}

function button(text, label, act, className) {
  const made = make("button", className, text);
  made.type = "button";
  made.title = label;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

class GroundMap {
  // owner: paint(map, context), hover(x, y), choose(x, y); datum: [latitude, longitude] of the origin
  constructor(element, owner, datum, tiles) {
    this.owner = owner;
    this.datum = datum;
    this.tiles = tiles ? new Tiles(this, tiles) : null;
    this.canvas = make("canvas", "ground");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", "map; drag to move, scroll, + and - to zoom, 0 to show all");
    this.context = this.canvas.getContext("2d");
    this.middle = [0, 0]; // metres
    this.scale = 1; // pixels per metre
    this.turn = 0; // 1: north is right
    this.bounds = [-50, -50, 50, 50];
    this.untouched = true;
    this.stamps = new Uint32Array(0);
    this.stamp = 0;
    const tools = make("div", "tools");
    this.compass = button("N", "north up, or the long side of the map along the window's", () => this.setTurn(1 - this.turn));
    this.compass.classList.add("compass");
    tools.append(
      button("+", "zoom in", () => this.zoom(1.6)),
      button("−", "zoom out", () => this.zoom(1 / 1.6)),
      button("⤢", "show all", () => this.fit()),
      this.compass,
    );
    this.ruler = make("div", "ruler");
    element.append(this.canvas, tools, this.ruler);
    if (tiles) {
      const attribution = make("a", "attribution", tiles.attribution);
      if (tiles.link) Object.assign(attribution, { href: tiles.link, target: "_blank", rel: "noopener" });
      element.append(attribution);
    }
    this.listen();
    new ResizeObserver(() => this.resize()).observe(element);
    this.resize();
  }

  resize() {
    const { clientWidth, clientHeight } = this.canvas.parentElement;
    if (!clientWidth || !clientHeight) return;
    this.ratio = Math.min(devicePixelRatio || 1, 3);
    [this.width, this.height] = [clientWidth, clientHeight];
    this.canvas.width = Math.round(clientWidth * this.ratio);
    this.canvas.height = Math.round(clientHeight * this.ratio);
    if (this.untouched) this.fit();
    this.redraw();
  }

  // ---- where things are

  setBounds(bounds) {
    this.bounds = bounds;
    if (this.untouched) this.fit();
  }

  fitted(turn) {
    const [west, south, east, north] = this.bounds;
    const [across, along] = turn ? [north - south, east - west] : [east - west, north - south];
    const margin = Math.min(48, this.width / 8);
    return Math.min((this.width - 2 * margin) / Math.max(across, 20), (this.height - 2 * margin) / Math.max(along, 20));
  }

  fit() {
    if (!this.width) return;
    this.untouched = true;
    // a street from south to north fills a wide window when north is to the right; a town stays as it is
    const sides = [this.bounds[2] - this.bounds[0], this.bounds[3] - this.bounds[1]];
    const street = Math.max(...sides) > 2.5 * Math.min(...sides);
    this.turn = street && this.fitted(1) > 1.15 * this.fitted(0) ? 1 : 0;
    this.scale = Math.min(this.fitted(this.turn), 40);
    this.middle = [(this.bounds[0] + this.bounds[2]) / 2, (this.bounds[1] + this.bounds[3]) / 2];
    this.redraw();
  }

  setTurn(turn) {
    this.turn = turn;
    if (this.untouched) this.scale = Math.min(this.fitted(turn), 40);
    this.redraw();
  }

  // x = this.x0 + this.xe * east + this.xn * north, and so for y
  project() {
    const [c, n] = this.turn ? [0, this.scale] : [this.scale, 0];
    [this.xe, this.xn, this.ye, this.yn] = [c, n, n, -c];
    this.x0 = this.width / 2 - this.xe * this.middle[0] - this.xn * this.middle[1];
    this.y0 = this.height / 2 - this.ye * this.middle[0] - this.yn * this.middle[1];
  }

  at(east, north) {
    return [this.x0 + this.xe * east + this.xn * north, this.y0 + this.ye * east + this.yn * north];
  }

  ground(x, y) {
    const [u, v] = [(x - this.width / 2) / this.scale, (y - this.height / 2) / this.scale];
    return this.turn ? [this.middle[0] + v, this.middle[1] + u] : [this.middle[0] + u, this.middle[1] - v];
  }

  // latitude and longitude of metres east and north, in words
  geodetic(east, north) {
    if (Number.isNaN(east) || Number.isNaN(north)) return null;
    const [latitude, longitude] = this.datum.map((degrees) => (degrees * Math.PI) / 180);
    const radius = EARTH_M * Math.cos(latitude);
    const there = [Math.atan(Math.sinh(Math.asinh(Math.tan(latitude)) + north / radius)), longitude + east / radius];
    const [up, over] = there.map((angle) => (angle * 180) / Math.PI);
    return `${up.toFixed(6)}, ${(((over + 540) % 360) - 180).toFixed(6)}`;
  }

  inside(x, y, margin = 20) {
    return x > -margin && y > -margin && x < this.width + margin && y < this.height + margin;
  }

  // keep a place in sight, without moving more than needed
  reveal(east, north) {
    const [x, y] = this.at(east, north);
    if (this.inside(x, y, -30)) return;
    this.untouched = false;
    this.middle = [east, north];
    this.redraw();
  }

  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const before = this.ground(x, y);
    this.scale = Math.min(Math.max(this.scale * factor, 1e-4), 400);
    const after = this.ground(x, y);
    this.move(before[0] - after[0], before[1] - after[1]);
  }

  move(east, north) {
    this.untouched = false;
    this.middle = [this.middle[0] + east, this.middle[1] + north];
    this.redraw();
  }

  drag(x, y) {
    const [from, to] = [this.ground(0, 0), this.ground(x, y)];
    this.move(from[0] - to[0], from[1] - to[1]);
  }

  // ---- hands

  listen() {
    const { canvas } = this;
    const pointers = new Map();
    let moved = 0;
    const place = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, place(event));
      if (pointers.size === 1) moved = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const now = place(event);
      const before = pointers.get(event.pointerId);
      if (!before) return this.owner.hover(...now, event.pointerType);
      const others = [...pointers].filter(([id]) => id !== event.pointerId);
      pointers.set(event.pointerId, now);
      moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
      if (moved < 4) return;
      if (others.length === 1) {
        const [, other] = others[0];
        const apart = (point) => Math.max(Math.hypot(point[0] - other[0], point[1] - other[1]), 1);
        this.zoom(apart(now) / apart(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
        this.drag((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
      } else if (!others.length) this.drag(now[0] - before[0], now[1] - before[1]);
    });
    const lift = (event) => {
      if (pointers.delete(event.pointerId) && event.type === "pointerup" && moved < 4) this.owner.choose(...place(event));
    };
    canvas.addEventListener("pointerup", lift);
    canvas.addEventListener("pointercancel", lift);
    canvas.addEventListener("pointerleave", () => this.owner.hover(-1e6, -1e6));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const step = event.deltaY * (event.deltaMode ? 20 : 1);
      this.zoom(Math.exp(-Math.min(Math.max(step, -240), 240) / 420), ...place(event));
    }, { passive: false });
  }

  key(name) {
    const act = { "+": () => this.zoom(1.6), "=": () => this.zoom(1.6), "-": () => this.zoom(1 / 1.6), 0: () => this.fit() }[name];
    if (act) act();
    return Boolean(act);
  }

  // ---- drawing

  redraw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.draw(); });
  }

  draw() {
    if (!this.width) return;
    const { context } = this;
    this.project();
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    if (this.tiles) this.tiles.draw(context);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.owner.paint(this, context);
    this.drawRuler();
    this.compass.style.setProperty("--turn", this.turn ? "90deg" : "0deg");
  }

  drawRuler() {
    const most = Math.min(140, this.width / 3) / this.scale;
    const power = 10 ** Math.floor(Math.log10(most));
    const length = Math.max(...ROUND_M.map((step) => step * power).filter((metres) => metres <= most));
    this.ruler.textContent = length < 1000 ? `${+length.toPrecision(1)} m` : `${length / 1000} km`;
    this.ruler.style.width = `${length * this.scale}px`;
  }

  // a picture of a mark, drawn once
  sprite(radius, paint) {
    const half = Math.ceil((radius + 2) * this.ratio);
    const picture = make("canvas");
    picture.width = picture.height = 2 * half;
    const context = picture.getContext("2d");
    context.translate(half, half);
    context.scale(this.ratio, this.ratio);
    paint(context);
    return { picture, half };
  }

  // many marks: of those within two pixels of one another the first; `of` gives a row's sprite or null.
  // Returns the number drawn.
  marks(xs, ys, of, cell = 2) {
    const { context, ratio, x0, y0, xe, xn, ye, yn, width, height } = this;
    const across = Math.ceil((width + 40) / cell);
    const size = across * Math.ceil((height + 40) / cell);
    if (this.stamps.length < size) this.stamps = new Uint32Array(size);
    const stamp = ++this.stamp;
    let drawn = 0;
    context.setTransform(1, 0, 0, 1, 0, 0);
    for (let row = 0; row < xs.length; row += 1) {
      const x = x0 + xe * xs[row] + xn * ys[row];
      const y = y0 + ye * xs[row] + yn * ys[row];
      if (!(x > -20 && y > -20 && x < width + 20 && y < height + 20)) continue; // NaN, too
      const at = Math.floor((y + 20) / cell) * across + Math.floor((x + 20) / cell);
      if (this.stamps[at] === stamp) continue;
      const sprite = of(row);
      if (!sprite) continue;
      this.stamps[at] = stamp;
      context.drawImage(sprite.picture, Math.round(x * ratio) - sprite.half, Math.round(y * ratio) - sprite.half);
      drawn += 1;
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    return drawn;
  }

  // whether more than so many are in sight
  crowded(xs, ys, most) {
    const { x0, y0, xe, xn, ye, yn, width, height } = this;
    let seen = 0;
    for (let row = 0; row < xs.length && seen <= most; row += 1) {
      const x = x0 + xe * xs[row] + xn * ys[row];
      const y = y0 + ye * xs[row] + yn * ys[row];
      if (x > 0 && y > 0 && x < width && y < height) seen += 1;
    }
    return seen > most;
  }

  // very many points, each a square of few pixels
  cloud(xs, ys, colour, side) {
    const { ratio, canvas, x0, y0, xe, xn, ye, yn } = this;
    const { width, height } = canvas;
    if (!this.sheet || this.sheet.width !== width || this.sheet.height !== height) {
      this.sheet = Object.assign(make("canvas"), { width, height });
      this.dots = new ImageData(width, height);
      this.words = new Uint32Array(this.dots.data.buffer);
    }
    const [red, green, blue, alpha] = colour;
    const word = new Uint32Array(new Uint8Array([red, green, blue, alpha]).buffer)[0];
    this.words.fill(0);
    const far = Math.max(1, Math.round(side * ratio));
    for (let row = 0; row < xs.length; row += 1) {
      const x = ((x0 + xe * xs[row] + xn * ys[row]) * ratio) | 0;
      const y = ((y0 + ye * xs[row] + yn * ys[row]) * ratio) | 0;
      if (x < 0 || y < 0 || x + far > width || y + far > height) continue;
      for (let at = y * width + x, i = 0; i < far; i += 1, at += width) for (let j = 0; j < far; j += 1) this.words[at + j] = word;
    }
    this.sheet.getContext("2d").putImageData(this.dots, 0, 0);
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.drawImage(this.sheet, 0, 0);
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  // direction on the screen of a heading, clockwise from north
  direction(degrees) {
    const [east, north] = [Math.sin((degrees * Math.PI) / 180), Math.cos((degrees * Math.PI) / 180)];
    return [(this.xe * east + this.xn * north) / this.scale, (this.ye * east + this.yn * north) / this.scale];
  }
}

// Web map tiles (EPSG:3857) below the map; only with an address.
class Tiles {
  constructor(map, { url }) {
    this.map = map;
    this.url = url;
    this.kept = new Map();
    const [latitude, longitude] = map.datum.map((degrees) => (degrees * Math.PI) / 180);
    this.metres = 2 * Math.PI * EARTH_M * Math.cos(latitude); // round the earth, at the origin
    this.origin = [0.5 + longitude / (2 * Math.PI), 0.5 - Math.asinh(Math.tan(latitude)) / (2 * Math.PI)];
  }

  draw(context) {
    const { map } = this;
    const level = Math.min(Math.max(Math.round(Math.log2((this.metres * map.scale) / 256)), 0), 19);
    const count = 2 ** level;
    const corners = [[0, 0], [map.width, 0], [0, map.height], [map.width, map.height]].map(([x, y]) => map.ground(x, y));
    const columns = corners.map(([east]) => (this.origin[0] + east / this.metres) * count);
    const lines = corners.map(([, north]) => (this.origin[1] - north / this.metres) * count);
    const side = this.metres / count;
    context.globalAlpha = map.owner.tilesAlpha;
    for (let line = Math.max(0, Math.floor(Math.min(...lines))); line <= Math.min(count - 1, Math.max(...lines)); line += 1) {
      for (let column = Math.floor(Math.min(...columns)); column <= Math.max(...columns); column += 1) {
        const image = this.tile(level, ((column % count) + count) % count, line);
        if (!image) continue;
        const east = (column / count - this.origin[0]) * this.metres;
        const north = (this.origin[1] - line / count) * this.metres;
        const [x, y] = map.at(east, north);
        const { ratio, xe, ye, xn, yn } = map;
        context.setTransform(ratio * xe, ratio * ye, -ratio * xn, -ratio * yn, ratio * x, ratio * y);
        context.drawImage(image, 0, 0, side, side);
      }
    }
    context.globalAlpha = 1;
  }

  tile(level, column, line) {
    const name = this.url.replace("{z}", level).replace("{x}", column).replace("{y}", line);
    let image = this.kept.get(name);
    if (!image) {
      if (this.kept.size > 500) this.kept.delete(this.kept.keys().next().value);
      image = new Image();
      image.addEventListener("load", () => this.map.redraw());
      image.src = name;
      this.kept.set(name, image);
    }
    return image.complete && image.naturalWidth ? image : null;
  }
}
