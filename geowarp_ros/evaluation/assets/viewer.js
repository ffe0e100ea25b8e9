"use strict";
// A gallery, a drive or a running node: its map, a timeline, and beside them what is chosen.

const RAMP = [[42, 157, 143], [224, 160, 48], [209, 73, 91]]; // of errors, as in the report's charts
const BUCKETS = 16;
const SPEEDS = [1, 2, 5, 10, 30];
const LISTED = 200;
const CROWD = 1500;
const AHEAD = 4;
const PHOTOGRAPHS = 60; // so many places in sight have theirs on the map
const [PHOTOGRAPH_WIDE, PHOTOGRAPH_HIGH] = [88, 66];
const REASONS = { "": "fix", no_fix: "no fix", dropped: "never answered" };

const known = (value) => value !== null && value !== undefined && value !== "";
const metres = (value) => (!known(value) ? "–" : value < 1 ? `${value.toFixed(2)} m` : value < 100 ? `${value.toFixed(1)} m` : `${Math.round(value).toLocaleString("en")} m`);
const count = (value) => value.toLocaleString("en");
const ramp = (share) => {
  const at = Math.min(Math.max(share, 0), 1) * 2;
  const [low, high, part] = at < 1 ? [RAMP[0], RAMP[1], at] : [RAMP[1], RAMP[2], at - 1];
  return `rgb(${low.map((value, i) => Math.round(value + part * (high[i] - value))).join(",")})`;
};

// least and greatest value but for one in twenty at either end: points may be triangulated far away
const middling = (values) => { const sorted = Float64Array.from(values).sort(); return [sorted[Math.floor(sorted.length * 0.05)], sorted[Math.floor(sorted.length * 0.95)]]; };

class Viewer {
  // imageOf(kind, row, width): address of a picture, "" without one
  constructor(root, scene, imageOf) {
    this.root = root;
    this.scene = scene;
    this.imageOf = imageOf;
    this.drive = scene.drive || null;
    this.places = scene.places || { x: [], y: [] };
    this.on = {
      places: true, points: true, truth: true, errors: true, lost: true, ellipses: false, moved: true,
      headings: !this.drive, photographs: true,
    };
    this.chosen = null; // { kind: "place" | "query", row }
    this.time = 0;
    this.speed = 1;
    this.aligned = 1; // 0: at the tags, 1: where the photographs were taken
    this.sprites = new Map();
    this.fetched = new Map();
    this.boxes = []; // of the photographs on the map: [left, top, row]
    this.follow = scene.kind === "live";
    root.classList.add("viewer");
    if (this.drive && !this.follow) root.classList.add("with-time");
    this.stage = make("div", "stage");
    this.legend = make("div", "legend");
    this.side = make("aside", "shown panel");
    root.append(this.stage, this.legend);
    if (this.drive) this.buildTimeline();
    root.append(this.side);
    this.tip = make("div", "tip");
    this.tip.hidden = true;
    this.dialog = make("dialog", "pair");
    this.dialog.setAttribute("aria-label", "the matched pair, enlarged");
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.dialog.close(); }); // beside it
    root.append(this.dialog);
    this.theme();
    this.map = new GroundMap(this.stage, this, scene.datum, scene.tiles);
    this.stage.append(this.tip);
    this.measure();
    this.buildLegend();
    this.showSummary();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.theme(); this.redraw(); });
    root.ownerDocument.addEventListener("keydown", (event) => this.key(event));
    if (this.drive && this.drive.t.length) this.choose_("query", this.first(), { reveal: false });
  }

  first() {
    return this.scene.first || 0;
  }

  theme() {
    const css = getComputedStyle(document.documentElement);
    const colour = (name) => css.getPropertyValue(name).trim();
    this.colours = Object.fromEntries(["ink", "soft", "card", "line", "good", "doubt", "bad", "accent", "paper"].map((name) => [name, colour(`--${name}`)]));
    this.dark = matchMedia("(prefers-color-scheme: dark)").matches;
    this.tilesAlpha = this.dark ? 0.4 : 0.7;
    this.sprites.clear();
  }

  redraw() {
    this.map.redraw();
    if (this.strip) this.drawStrip();
  }

  // ---- what is there

  measure() {
    const { scene, places, drive } = this;
    const typed = (values, otherwise) => Float64Array.from(values || otherwise || [], (value) => (value === null ? NaN : value));
    places.tagX = typed(places.x);
    places.tagY = typed(places.y);
    // one that nothing ties stays at its tag
    const own = (values, tags) => Float64Array.from(tags, (tag, row) => (known(values?.[row]) ? values[row] : tag));
    places.ownX = own(places.own_x, places.tagX);
    places.ownY = own(places.own_y, places.tagY);
    this.suspicious = new Set(places.suspicious || []);
    this.movePlaces();
    let box = [Infinity, Infinity, -Infinity, -Infinity];
    const add = (xs, ys) => {
      for (let row = 0; row < xs.length; row += 1) {
        if (Number.isNaN(xs[row]) || Number.isNaN(ys[row])) continue;
        box[0] = Math.min(box[0], xs[row]); box[1] = Math.min(box[1], ys[row]);
        box[2] = Math.max(box[2], xs[row]); box[3] = Math.max(box[3], ys[row]);
      }
    };
    if (drive) {
      Object.assign(drive, { X: typed(drive.x), Y: typed(drive.y), TX: typed(drive.tx), TY: typed(drive.ty) });
      drive.fixed = drive.status.map((status) => status === "fix");
      drive.judged = drive.error.some((error, row) => known(error) && drive.fixed[row]);
      // where an image stands: a fix where it is, another at its true position, else at its guess
      drive.MX = drive.X.map((x, row) => (drive.fixed[row] || Number.isNaN(drive.TX[row]) ? x : drive.TX[row]));
      drive.MY = drive.Y.map((y, row) => (drive.fixed[row] || Number.isNaN(drive.TY[row]) ? y : drive.TY[row]));
      add(drive.TX, drive.TY);
      const track = [...box];
      add(drive.X.map((x, row) => (drive.fixed[row] || scene.untimed ? x : NaN)), drive.Y); // of photographs guesses, too
      // a fix far away does not make the drive a dot
      if (track[0] <= track[2] && Math.hypot(box[2] - box[0], box[3] - box[1]) > 3 * Math.hypot(track[2] - track[0], track[3] - track[1])) box = track;
    }
    if (!drive || scene.kind === "live" || box[0] > box[2]) { add(places.tagX, places.tagY); add(places.ownX, places.ownY); }
    if (!drive && this.scene.points) add(...[this.scene.points.x, this.scene.points.y].map((values) => middling(values)));
    const room = scene.untimed ? 30 : 0; // a single photograph has its surroundings
    if (box[0] <= box[2]) this.map.setBounds([box[0] - room, box[1] - room, box[2] + room, box[3] + room]);
  }

  movePlaces() {
    const { places, aligned } = this;
    places.X = places.tagX.map((tag, row) => tag + aligned * (places.ownX[row] - tag));
    places.Y = places.tagY.map((tag, row) => tag + aligned * (places.ownY[row] - tag));
  }

  // ---- marks

  sprite(name, radius, paint) {
    const key = `${name}@${this.map.ratio}`;
    if (!this.sprites.has(key)) this.sprites.set(key, this.map.sprite(radius, paint));
    return this.sprites.get(key);
  }

  disc(name, radius, fill, stroke, width = 1) {
    return this.sprite(name, radius, (context) => {
      context.beginPath();
      context.arc(0, 0, radius, 0, 2 * Math.PI);
      context.fillStyle = fill;
      context.fill();
      if (!stroke) return;
      context.lineWidth = width;
      context.strokeStyle = stroke;
      context.stroke();
    });
  }

  cross(name, size, colour) {
    return this.sprite(name, size, (context) => {
      context.beginPath();
      for (const side of [1, -1]) { context.moveTo(-size * side, -size); context.lineTo(size * side, size); }
      context.lineCap = "round";
      context.lineWidth = 5; context.strokeStyle = this.colours.card; context.stroke();
      context.lineWidth = 2.4; context.strokeStyle = colour; context.stroke();
    });
  }

  // share of the worst that the colours know: error where there is truth, else the claimed radius
  badness(row) {
    const value = this.drive.judged ? this.drive.error[row] : this.drive.radius[row];
    return known(value) ? value / (this.scene.correct_within_m || 25) : NaN;
  }

  fixSprite(row) {
    if (Number.isNaN(this.badness(row))) return this.disc("unjudged", 4.5, this.colours.soft, this.colours.card);
    const bucket = Math.round(Math.min(this.badness(row), 1) * BUCKETS);
    const bad = this.drive.judged && this.badness(row) > 1;
    const edge = this.dark ? "rgba(10,12,15,.85)" : "rgba(29,33,39,.7)";
    return this.disc(`fix${bucket}${bad}`, bad ? 6.5 : 5, ramp(bucket / BUCKETS), bad ? this.colours.ink : edge, bad ? 2 : 1);
  }

  placeSprite(row) {
    const { places, colours } = this;
    if (this.drive) return this.disc("quiet", 2.6, this.dark ? "rgba(152,162,176,.55)" : "rgba(98,107,120,.45)");
    if (this.suspicious.has(row)) return this.disc("suspicious", 5, colours.bad, colours.card, 1.5);
    if (places.own_x && !known(places.own_x[row])) return this.disc("untied", 3.6, colours.card, colours.soft, 1.6);
    return this.disc("place", 3.8, colours.accent, colours.card, 1);
  }

  paint(map, context) {
    const { scene, places, drive, on, colours } = this;
    if (on.points && scene.points) {
      map.cloud(scene.points.x, scene.points.y, this.dark ? [120, 132, 150, 150] : [110, 120, 134, 120], map.scale > 4 ? 2 : 1);
    }
    // of a whole town each place is a square: discs would cover one another, and take long
    const crowded = map.crowded(places.X, places.Y, CROWD);
    this.boxes = [];
    if (crowded && on.places) map.cloud(places.X, places.Y, this.drive ? [128, 137, 150, 110] : this.dark ? [125, 178, 255, 255] : [47, 111, 202, 255], drive ? 2 : 3);
    if (!crowded && on.photographs && !drive) this.paintPhotographs(map, context); // below the places
    if (!crowded && on.moved && places.own_x && !drive) this.paintMoved(map, context);
    if (!crowded && on.places) {
      const drawn = map.marks(places.X, places.Y, (row) => this.placeSprite(row));
      if (on.headings && !drive && drawn < CROWD / 2) this.paintHeadings(map, context);
    }
    if (drive) this.paintDrive(map, context);
    if (this.chosen) this.paintChosen(map, context);
  }

  paintMoved(map, context) {
    const { places } = this;
    const tags = this.disc("tag", 2.2, this.dark ? "rgba(152,162,176,.8)" : "rgba(98,107,120,.7)");
    context.lineWidth = 1;
    for (const [colour, wanted] of [[this.colours.soft, false], [this.colours.bad, true]]) {
      context.beginPath();
      for (let row = 0; row < places.X.length; row += 1) {
        if (this.suspicious.has(row) !== wanted || !known(places.own_x[row])) continue;
        const [x, y] = map.at(places.tagX[row], places.tagY[row]);
        const [u, v] = map.at(places.X[row], places.Y[row]);
        if (!map.inside(x, y) && !map.inside(u, v)) continue;
        if (Math.abs(x - u) + Math.abs(y - v) < 2) continue;
        context.moveTo(x, y);
        context.lineTo(u, v);
      }
      context.strokeStyle = colour;
      context.stroke();
    }
    map.marks(places.tagX, places.tagY, () => tags);
  }

  paintHeadings(map, context) {
    const { places, colours } = this;
    context.beginPath();
    for (let row = 0; row < places.X.length; row += 1) {
      const heading = this.headingOf(row);
      if (!known(heading)) continue;
      const [x, y] = map.at(places.X[row], places.Y[row]);
      if (!map.inside(x, y)) continue;
      const [dx, dy] = map.direction(heading);
      context.moveTo(x + 4 * dx, y + 4 * dy);
      context.lineTo(x + 12 * dx, y + 12 * dy);
    }
    context.lineWidth = 2;
    context.lineCap = "round";
    context.strokeStyle = colours.accent;
    context.stroke();
  }

  // above their places, where there is room
  paintPhotographs(map, context) {
    const { places, boxes, colours } = this;
    if (map.crowded(places.X, places.Y, PHOTOGRAPHS)) return;
    for (let row = 0; row < places.X.length; row += 1) {
      const [x, y] = map.at(places.X[row], places.Y[row]);
      if (!map.inside(x, y, 0)) continue;
      const [left, top] = [x - PHOTOGRAPH_WIDE / 2, y - PHOTOGRAPH_HIGH - 16];
      if (boxes.some(([u, v]) => Math.abs(u - left) < PHOTOGRAPH_WIDE + 24 && Math.abs(v - top) < PHOTOGRAPH_HIGH + 24)) continue;
      const image = this.fetch(this.imageOf("place", row, 192), true);
      if (!image) continue;
      boxes.push([left, top, row]);
      context.fillStyle = colours.card;
      context.strokeStyle = this.chosen?.kind === "place" && this.chosen.row === row ? colours.ink : colours.soft;
      context.lineWidth = 1;
      context.beginPath();
      context.roundRect(left - 3, top - 3, PHOTOGRAPH_WIDE + 6, PHOTOGRAPH_HIGH + 6, 5);
      context.moveTo(x, top + PHOTOGRAPH_HIGH + 3);
      context.lineTo(x, y - 5);
      context.fill();
      context.stroke();
      // the middle of the photograph
      const part = Math.min(image.naturalWidth / PHOTOGRAPH_WIDE, image.naturalHeight / PHOTOGRAPH_HIGH);
      const [wide, high] = [part * PHOTOGRAPH_WIDE, part * PHOTOGRAPH_HIGH];
      context.drawImage(image, (image.naturalWidth - wide) / 2, (image.naturalHeight - high) / 2, wide, high, left, top, PHOTOGRAPH_WIDE, PHOTOGRAPH_HIGH);
    }
  }

  headingOf(row) {
    const { places } = this;
    return this.aligned > 0.5 && known(places.own_heading?.[row]) ? places.own_heading[row] : places.heading?.[row];
  }

  paintDrive(map, context) {
    const { drive, on, colours } = this;
    if (on.truth) {
      context.beginPath();
      let gap = true;
      for (let row = 0; row < drive.TX.length; row += 1) {
        if (Number.isNaN(drive.TX[row])) { gap = true; continue; }
        const [x, y] = map.at(drive.TX[row], drive.TY[row]);
        context[gap ? "moveTo" : "lineTo"](x, y);
        gap = false;
      }
      context.lineWidth = 2;
      context.lineJoin = "round";
      context.strokeStyle = colours.soft;
      context.stroke();
    }
    const link = (wanted, dash, colour) => {
      context.beginPath();
      for (let row = 0; row < drive.X.length; row += 1) {
        if (drive.fixed[row] !== wanted || Number.isNaN(drive.X[row]) || Number.isNaN(drive.TX[row])) continue;
        context.moveTo(...map.at(drive.TX[row], drive.TY[row]));
        context.lineTo(...map.at(drive.X[row], drive.Y[row]));
      }
      context.setLineDash(dash);
      context.lineWidth = 1.2;
      context.strokeStyle = colour;
      context.stroke();
      context.setLineDash([]);
    };
    if (on.errors) link(true, [], colours.bad);
    if (on.lost) {
      link(false, [3, 4], colours.soft);
      const guess = this.diamond("guess", 4.5, colours.card, colours.doubt);
      map.marks(drive.X, drive.Y, (row) => (drive.fixed[row] ? null : guess));
    }
    if (on.ellipses) {
      for (let row = 0; row < drive.X.length; row += 1) if (drive.fixed[row]) this.ellipse(map, context, row, 0.03);
    }
    if (on.lost) {
      const cross = this.cross("lost", 4.2, colours.doubt);
      map.marks(drive.TX, drive.TY, (row) => (drive.fixed[row] ? null : cross));
    }
    // the worst last: they are never below others
    if (!drive.order) drive.order = [...drive.X.keys()].filter((row) => drive.fixed[row]).sort((a, b) => (this.badness(a) || 0) - (this.badness(b) || 0));
    const take = (values) => Float64Array.from(drive.order, (row) => values[row]);
    drive.OX ||= take(drive.X);
    drive.OY ||= take(drive.Y);
    if (on.headings) {
      for (const [xs, ys, headings, colour] of [[drive.TX, drive.TY, drive.true_heading, colours.soft], [drive.X, drive.Y, drive.heading, colours.accent]]) {
        context.beginPath();
        for (const row of drive.order) {
          if (!known(headings[row]) || Number.isNaN(xs[row])) continue;
          const [x, y] = map.at(xs[row], ys[row]);
          const [dx, dy] = map.direction(headings[row]);
          context.moveTo(x, y);
          context.lineTo(x + 15 * dx, y + 15 * dy);
        }
        context.lineWidth = 1.8;
        context.strokeStyle = colour;
        context.stroke();
      }
    }
    map.marks(drive.OX, drive.OY, (at) => this.fixSprite(drive.order[at]), 1);
  }

  diamond(name, size, fill, stroke) {
    return this.sprite(name, size, (context) => {
      context.beginPath();
      context.moveTo(0, -size); context.lineTo(size, 0); context.lineTo(0, size); context.lineTo(-size, 0); context.closePath();
      context.fillStyle = fill; context.fill();
      context.lineWidth = 2; context.strokeStyle = stroke; context.stroke();
    });
  }

  // 95 % of the truths lie inside
  ellipse(map, context, row, opacity) {
    const { ee, en, nn } = this.drive;
    if (!known(ee[row]) || !known(nn[row])) return;
    const [a, b, c] = [ee[row], en[row] || 0, nn[row]];
    const [mean, apart] = [(a + c) / 2, Math.hypot((a - c) / 2, b)];
    const axis = 0.5 * Math.atan2(2 * b, a - c); // of the long axis, from east towards north
    const bound = Math.sqrt(5.991);
    const [x, y] = map.at(this.drive.X[row], this.drive.Y[row]);
    const [dx, dy] = map.direction(90 - (axis * 180) / Math.PI);
    const half = (variance) => Math.max(bound * Math.sqrt(Math.max(variance, 0)) * map.scale, 0.5);
    context.beginPath();
    context.ellipse(x, y, half(mean + apart), half(mean - apart), Math.atan2(dy, dx), 0, 2 * Math.PI);
    context.fillStyle = this.colours.accent;
    context.globalAlpha = opacity;
    context.fill();
    context.globalAlpha = 0.75;
    context.lineWidth = 1.2;
    context.strokeStyle = this.colours.accent;
    context.stroke();
    context.globalAlpha = 1;
  }

  ring(context, x, y, radius) {
    for (const [width, colour] of [[5, this.colours.card], [2.5, this.colours.ink]]) {
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.stroke();
    }
  }

  fan(map, context, x, y, heading, colour) {
    const [dx, dy] = map.direction(heading);
    const middle = Math.atan2(dy, dx);
    context.beginPath();
    context.moveTo(x, y);
    context.arc(x, y, 34, middle - 0.45, middle + 0.45);
    context.closePath();
    context.globalAlpha = 0.28;
    context.fillStyle = colour;
    context.fill();
    context.globalAlpha = 1;
  }

  paintChosen(map, context) {
    const { places, drive, colours } = this;
    const { kind, row } = this.chosen;
    if (kind === "place") {
      const [x, y] = map.at(places.X[row], places.Y[row]);
      if (known(this.headingOf(row))) this.fan(map, context, x, y, this.headingOf(row), colours.accent);
      return this.ring(context, x, y, 8);
    }
    const [x, y] = map.at(drive.MX[row], drive.MY[row]);
    const place = drive.place[row];
    if (known(place) && !Number.isNaN(x)) {
      const [u, v] = map.at(places.X[place], places.Y[place]);
      context.beginPath();
      context.moveTo(...map.at(drive.X[row], drive.Y[row]));
      context.lineTo(u, v);
      context.setLineDash([2, 3]);
      context.lineWidth = 1.6;
      context.strokeStyle = colours.accent;
      context.stroke();
      context.setLineDash([]);
      map.marks([places.X[place]], [places.Y[place]], () => this.disc("match", 5, colours.accent, colours.card, 2));
    }
    if (drive.fixed[row]) {
      if (known(drive.heading[row])) this.fan(map, context, x, y, drive.heading[row], colours.accent);
      this.ellipse(map, context, row, 0.16);
      map.marks([drive.X[row]], [drive.Y[row]], () => this.fixSprite(row));
    }
    this.ring(context, x, y, 10);
  }

  // ---- choosing

  // rows near a point of the screen, nearest first; the images of the drive before places
  near(x, y, reach = 14) {
    const box = this.boxes.find(([left, top]) => x >= left && y >= top && x <= left + PHOTOGRAPH_WIDE && y <= top + PHOTOGRAPH_HIGH);
    if (box) reach = 6; // a place in front of a photograph is pointed at more exactly
    const { map, places, drive } = this;
    const search = (kind, xs, ys) => {
      const found = [];
      for (let row = 0; row < xs.length; row += 1) {
        const dx = map.x0 + map.xe * xs[row] + map.xn * ys[row] - x;
        const dy = map.y0 + map.ye * xs[row] + map.yn * ys[row] - y;
        const squared = dx * dx + dy * dy;
        if (squared < reach * reach) found.push([squared, { kind, row }]);
      }
      return found.sort((a, b) => a[0] - b[0]).slice(0, 50).map((one) => one[1]);
    };
    const queries = drive ? search("query", drive.MX, drive.MY) : [];
    const found = queries.length || !this.on.places ? queries : search("place", places.X, places.Y);
    return found.length || !box ? found : [{ kind: "place", row: box[2] }];
  }

  choose(x, y) {
    const found = this.near(x, y);
    this.tip.hidden = true;
    if (!found.length) return;
    // several at one spot: each click shows the next
    const spot = ({ kind, row }) => (kind === "place" ? [this.places.X[row], this.places.Y[row]] : [this.drive.MX[row], this.drive.MY[row]]);
    const [first] = found.map(spot);
    const same = found.filter((one) => { const at = spot(one); return Math.hypot(at[0] - first[0], at[1] - first[1]) * this.map.scale < 1.5; });
    const at = same.findIndex((one) => this.chosen && one.kind === this.chosen.kind && one.row === this.chosen.row);
    const next = same[(at + 1) % same.length];
    this.choose_(next.kind, next.row, { reveal: false });
  }

  hover(x, y, pointer) {
    clearTimeout(this.hovering);
    const [found] = pointer === "touch" || x < -1e5 ? [] : this.near(x, y);
    this.map.canvas.style.cursor = found ? "pointer" : "";
    if (!found) { this.tip.hidden = true; return; }
    const key = `${found.kind}${found.row}`;
    if (this.tip.dataset.of !== key) {
      this.tip.dataset.of = key;
      const parts = [];
      const source = this.imageOf(found.kind, found.row, 320);
      if (source) parts.push(this.picture(source, ""));
      parts.push(make("b", "", this.titleOf(found)), make("span", "", this.subtitleOf(found)));
      this.tip.replaceChildren(...parts);
    }
    this.tip.hidden = false;
    const [wide, high] = [this.tip.offsetWidth, this.tip.offsetHeight];
    const left = x + 18 + wide < this.map.width ? x + 18 : x - 18 - wide;
    this.tip.style.transform = `translate(${Math.max(4, left)}px, ${Math.min(Math.max(4, y - high / 2), this.map.height - high - 4)}px)`;
  }

  choose_(kind, row, { reveal = true } = {}) {
    this.chosen = { kind, row };
    if (kind === "query") this.time = this.drive.t[row];
    if (reveal && this.map.width) {
      this.map.project();
      const of = kind === "query" ? [this.drive.MX[row], this.drive.MY[row]] : [this.places.X[row], this.places.Y[row]];
      if (!of.some(Number.isNaN)) this.map.reveal(...of);
    }
    this.showChosen();
    this.redraw();
  }

  titleOf({ kind, row }) {
    return kind === "place" ? this.places.name?.[row] ?? `place ${row + 1}` : this.drive.title[row];
  }

  subtitleOf({ kind, row }) {
    if (kind === "place") return this.scene.kind === "gallery" ? this.stateOf(row) : "place of the gallery";
    return this.verdict(row);
  }

  stateOf(row) {
    const { places } = this;
    const off = known(places.own_x?.[row]) ? Math.hypot(places.own_x[row] - places.tagX[row], places.own_y[row] - places.tagY[row]) : null;
    if (this.suspicious.has(row)) return `suspicious tag, off by ${metres(off)}`;
    if (off !== null) return `aligned, ${metres(off)} from its tag`;
    return places.own_x ? "not tied to others: its tag stands" : "at its tag";
  }

  verdict(row) {
    const { drive } = this;
    if (drive.fixed[row]) {
      if (known(drive.error[row])) return `fix, ${metres(drive.error[row])} off`;
      return known(drive.radius[row]) ? `fix, 95 % within ${metres(drive.radius[row])}` : "fix";
    }
    const why = drive.status[row] === "dropped" ? REASONS.dropped : `no fix${drive.reason[row] ? `: ${drive.reason[row].replaceAll("_", " ")}` : ""}`;
    return known(drive.error[row]) ? `${why}; its guess is ${metres(drive.error[row])} off` : why;
  }

  mood(row) {
    const { drive } = this;
    if (!drive.fixed[row]) return "doubt";
    return drive.judged && this.badness(row) > 1 ? "bad" : "good";
  }

  // ---- beside the map

  picture(source, alt, quad) {
    const figure = make("figure");
    const image = make("img");
    image.alt = alt;
    image.decoding = "sync"; // one that was fetched ahead is there at once
    figure.classList.add("loading");
    for (const end of ["load", "error"]) image.addEventListener(end, () => figure.classList.remove("loading"));
    image.src = source;
    if (image.complete) figure.classList.remove("loading");
    figure.append(image);
    if (quad) figure.append(outline(quad));
    return figure;
  }

  facts(rows) {
    const list = make("dl");
    for (const [name, value] of rows) if (known(value)) list.append(make("dt", "", name), make("dd", "", value));
    return list;
  }

  showChosen() {
    const { kind, row } = this.chosen;
    this.side.replaceChildren(...(kind === "place" ? this.aboutPlace(row) : this.aboutQuery(row)));
    if (this.dialog.open) this.fillDialog();
    if (this.clock && kind === "query") this.showTime();
  }

  aboutPlace(row) {
    const { places } = this;
    const parts = [make("h3", "name", this.titleOf(this.chosen))];
    const state = this.suspicious.has(row) ? "bad" : places.own_x && !known(places.own_x[row]) ? "doubt" : "good";
    if (this.scene.kind === "gallery") parts.push(this.chip(this.stateOf(row), state));
    const source = this.imageOf("place", row, 800);
    if (source) parts.push(this.enlarging(this.picture(source, "the photograph")));
    const degrees = (value) => (known(value) ? `${value.toFixed(1)}°` : null);
    parts.push(this.facts([
      ["number", this.scene.kind === "gallery" ? `${count(row + 1)} of ${count(places.x.length)}` : null],
      [places.own_x ? "tag" : "position", this.map.geodetic(places.tagX[row], places.tagY[row])],
      ["heading", degrees(places.heading?.[row])],
      ["own position", known(places.own_std?.[row]) ? `${this.map.geodetic(places.ownX[row], places.ownY[row])} ± ${metres(places.own_std[row])}` : null],
      ["own heading", degrees(places.own_heading?.[row])],
      ["altitude", known(places.altitude?.[row]) ? `${places.altitude[row].toFixed(1)} m` : null],
      ["taken", known(places.time?.[row]) ? new Date(places.time[row]).toISOString().replace("T", " ").slice(0, 19) : null],
      ["split", places.split?.[row]],
    ]));
    return parts;
  }

  aboutQuery(row) {
    const { drive } = this;
    const head = make("div", "head");
    head.append(make("h3", "", drive.title[row]), make("span", "label", `image ${count(row + 1)} of ${count(drive.t.length)}`));
    const parts = [head, this.chip(this.verdict(row), this.mood(row))];
    const pictures = make("div", "views");
    for (const [of, caption, quad] of this.pairOf(row)) {
      if (!of) continue;
      const figure = this.picture(of(480), caption, quad);
      figure.append(make("figcaption", "", caption));
      pictures.append(figure);
    }
    pictures.classList.toggle("one", pictures.children.length === 1);
    this.fetchAhead(row); // after the pair itself: a browser asks for six at a time
    if (pictures.children.length) parts.push(this.enlarging(pictures));
    else parts.push(make("p", "label", this.scene.no_images || "no pictures at hand"));
    const [std, error] = [drive.heading_std[row], drive.heading_error[row]];
    parts.push(this.facts([
      ["confidence", known(drive.confidence[row]) ? drive.confidence[row].toFixed(3) : null],
      [drive.fixed[row] ? "position" : "its guess", this.map.geodetic(drive.X[row], drive.Y[row])],
      ["95 % within", known(drive.radius[row]) ? metres(drive.radius[row]) : null],
      ["heading", known(drive.heading[row]) ? `${drive.heading[row].toFixed(1)}°${known(std) ? ` ± ${std.toFixed(1)}°` : ""}` : null],
      ["heading error", known(error) ? `${error.toFixed(1)}°` : null],
      ["position by", drive.method[row]],
      ["distance", known(drive.distance[row]) ? drive.distance[row].toFixed(3) : null],
      ["score", known(drive.score[row]) ? `${+drive.score[row].toFixed(3)}` : null],
      ["latency", known(drive.latency[row]) ? `${Math.round(drive.latency[row])} ms` : null],
    ]));
    const names = make("p", "names");
    names.append(make("span", "", drive.name[row]));
    if (drive.candidate[row]) names.append(make("span", "", `like ${drive.candidate[row]}`));
    parts.push(names);
    return parts;
  }

  // the pictures that come next are there when they are wanted
  fetchAhead(row) {
    for (let next = row + 1; next <= Math.min(row + AHEAD, this.drive.t.length - 1); next += 1) {
      for (const [of] of this.pairOf(next)) {
        const source = of?.(480) || "";
        if (!source.startsWith("data:")) this.fetch(source);
      }
    }
  }

  // an image, once it is there; with `drawn` the map is drawn anew then
  fetch(source, drawn) {
    if (!source) return null;
    let image = this.fetched.get(source);
    if (!image) {
      image = new Image();
      if (drawn) image.addEventListener("load", () => this.map.redraw());
      image.src = source;
      this.fetched.set(source, image);
      if (this.fetched.size > 3 * PHOTOGRAPHS) this.fetched.delete(this.fetched.keys().next().value);
    }
    return image.complete && image.naturalWidth ? image : null;
  }

  chip(text, mood) {
    return make("p", `chip ${mood}`, text);
  }

  // pictures of an image of the drive: [address by width, caption, quad]
  pairOf(row) {
    const { drive } = this;
    const of = (kind, at) => (this.imageOf(kind, at, 1) ? (width) => this.imageOf(kind, at, width) : null);
    if (this.scene.kind === "live") return [[of("live", drive.picture?.[row]), "query and best candidate"]];
    return [
      [of("query", row), "query", drive.query_quad?.[row]],
      [known(drive.place[row]) ? of("place", drive.place[row]) : null, "best candidate", drive.candidate_quad?.[row]],
    ];
  }

  enlarging(content) {
    const opener = make("button", "enlarge");
    opener.type = "button";
    opener.title = "enlarge (Enter)";
    opener.setAttribute("aria-label", "enlarge");
    opener.append(content);
    opener.addEventListener("click", () => this.openDialog());
    return opener;
  }

  openDialog() {
    if (!this.chosen || this.dialog.open) return;
    this.fillDialog();
    this.dialog.showModal();
  }

  fillDialog() {
    const { kind, row } = this.chosen;
    const head = make("div", "head");
    head.append(
      make("h3", "", kind === "place" ? this.titleOf(this.chosen) : `${this.titleOf(this.chosen)}  ·  ${this.verdict(row)}`),
      button("←", "the one before (←)", () => this.step(-1)),
      button("→", "the next (→)", () => this.step(1)),
      button("×", "close (Esc)", () => this.dialog.close()),
    );
    const views = make("div", "views");
    const add = (source, caption, quad) => {
      if (!source) return;
      const figure = this.picture(source, caption, quad);
      figure.append(make("figcaption", "", caption));
      views.append(figure);
    };
    if (kind === "place") add(this.imageOf("place", row, 1600), "the photograph");
    else {
      const pair = this.pairOf(row);
      for (const [of, caption, quad] of pair) add(of?.(1600), quad ? `${caption}, and what both see` : caption, quad);
      if (pair.every(([of, , quad]) => of && quad)) {
        for (const which of ["query", "candidate"]) add(this.imageOf(`${which}-warped`, row, 800), `${which}, warped to the common view`);
      }
    }
    views.classList.toggle("one", views.children.length < 2);
    this.dialog.replaceChildren(head, views);
  }

  showSummary() {
    const { scene, places } = this;
    const parts = [];
    if (this.drive) parts.push(make("p", "label", "waiting for the first answer …"));
    else {
      parts.push(make("h3", "", `${count(places.x.length)} places`), make("p", "label", "Click one, or step through them with ← and →."));
      for (const note of scene.notes) parts.push(make("p", "", note));
    }
    const left = scene.left_out || [];
    if (left.length) {
      const reasons = new Map();
      for (const [name, reason] of left) reasons.set(reason, [...(reasons.get(reason) || []), name]);
      parts.push(make("h3", "spaced", `${count(left.length)} left out`));
      for (const [reason, names] of [...reasons].sort((a, b) => b[1].length - a[1].length)) {
        const details = make("details");
        const list = make("ul", "names");
        for (const name of names.slice(0, LISTED)) list.append(make("li", "", name));
        if (names.length > LISTED) list.append(make("li", "", `and ${count(names.length - LISTED)} more, in left_out.csv`));
        details.append(make("summary", "", `${reason} (${count(names.length)})`), list);
        parts.push(details);
      }
    }
    this.side.replaceChildren(...parts);
  }

  // ---- legend

  buildLegend() {
    const { drive, places, scene, on } = this;
    this.legend.replaceChildren();
    const add = (key, text, mark) => {
      const row = make(key ? "label" : "span", "entry");
      if (key) {
        const box = make("input");
        box.type = "checkbox";
        box.checked = on[key];
        box.addEventListener("change", () => { on[key] = box.checked; this.redraw(); });
        row.append(box);
      }
      row.append(mark, make("span", "", text));
      this.legend.append(row);
    };
    const mark = (className) => make("i", `mark ${className}`);
    if (drive) {
      const scale = make("span", "entry");
      const fixes = drive.fixed.filter(Boolean).length;
      const most = `${scene.correct_within_m || 25} m`;
      scale.append(make("span", "", `${count(fixes)} fixes, ${drive.judged ? "error" : "claimed radius"}`), make("span", "edge", "0"), mark("ramp"), make("span", "edge", most));
      this.legend.append(scale);
      if (drive.judged && drive.order?.length !== 0 && drive.fixed.some((fixed, row) => fixed && this.badness(row) > 1)) add(null, "false fix", mark("false"));
      const lost = drive.fixed.length - fixes;
      if (lost || scene.kind === "live") {
        add("lost", `${count(lost)} no fix`, drive.tx.some(known) ? mark("lost") : ""); // a cross is where it truly was
        this.legend.lastChild.append(mark("guess"), make("span", "", "its guess"));
      }
      if (drive.tx.some(known)) {
        add("truth", "true track", mark("truth"));
        add("errors", "error", mark("error"));
      }
      add("ellipses", "95 % ellipses", mark("ellipse"));
      if (drive.heading.some(known)) add("headings", "headings", mark("heading"));
      if (places.x.length) add("places", "gallery", mark("quiet"));
      return;
    }
    const tied = places.own_x ? places.own_x.filter(known).length : 0;
    if (!places.own_x) add("places", `${count(places.x.length)} places`, mark("place"));
    else {
      add("places", `${count(tied)} aligned`, mark("place"));
      if (tied < places.x.length) add(null, `${count(places.x.length - tied)} not tied`, mark("untied"));
      if (this.suspicious.size) add(null, `${count(this.suspicious.size)} suspicious tag${this.suspicious.size === 1 ? "" : "s"}`, mark("suspicious"));
      add("moved", "from the tag", mark("tag"));
    }
    if ((places.heading || []).some(known) || (places.own_heading || []).some(known)) add("headings", "headings", mark("heading"));
    if (scene.pictures?.includes?.("place")) add("photographs", "photographs, nearby", mark("photograph"));
    if (scene.points) add("points", `${count(scene.points.of)} points of the structure${scene.points.of > scene.points.x.length ? `, ${count(scene.points.x.length)} drawn` : ""}`, mark("point"));
    if (places.own_x) this.buildSwitch();
  }

  buildSwitch() {
    const group = make("span", "switch");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "positions");
    const choices = [["tags", 0], ["aligned", 1]].map(([text, to]) => button(text, to ? "where the photographs were taken" : "where their tags say", () => {
      choices.forEach((one, at) => one.setAttribute("aria-pressed", String(at === to)));
      this.glide(to);
    }));
    choices.forEach((one, at) => one.setAttribute("aria-pressed", String(at === this.aligned)));
    group.append(...choices);
    this.legend.append(group);
  }

  glide(to) {
    const from = this.aligned;
    const start = performance.now();
    const lasts = matchMedia("(prefers-reduced-motion: reduce)").matches || this.places.X.length > 2e5 ? 1 : 450;
    const move = (now) => {
      const part = Math.min((now - start) / lasts, 1);
      this.aligned = from + (to - from) * (part < 0.5 ? 2 * part * part : 1 - 2 * (1 - part) ** 2);
      this.movePlaces();
      this.map.redraw();
      if (part < 1) requestAnimationFrame(move);
      else if (this.chosen) this.showChosen();
    };
    requestAnimationFrame(move);
  }

  // ---- time

  buildTimeline() {
    const bar = make("div", "timeline panel");
    this.player = button("▶", "play or pause (space)", () => this.play(!this.playing), "play");
    this.clock = make("output", "clock", "0.0 s");
    this.strip = make("canvas", "strip");
    this.strip.tabIndex = 0;
    this.strip.setAttribute("role", "slider");
    this.strip.setAttribute("aria-label", "time");
    this.strip.setAttribute("aria-valuemin", "0");
    const pace = make("select");
    pace.setAttribute("aria-label", "speed");
    for (const speed of SPEEDS) pace.append(Object.assign(make("option", "", `${speed}×`), { value: speed }));
    pace.addEventListener("change", () => { this.speed = Number(pace.value); });
    const problem = button("next problem", "the next image without a right fix (n)", () => this.nextProblem(), "problem");
    if (this.scene.kind === "live") {
      const label = make("label", "entry");
      const box = make("input");
      box.type = "checkbox";
      box.checked = true;
      box.addEventListener("change", () => { this.follow = box.checked; if (box.checked) this.choose_("query", this.drive.t.length - 1); });
      this.follower = box;
      label.append(box, make("span", "", "newest"));
      bar.append(this.clock, this.strip, label);
    } else bar.append(this.player, this.clock, this.strip, pace, problem);
    this.root.append(bar);
    const seek = (event) => {
      const box = this.strip.getBoundingClientRect();
      this.seek(((event.clientX - box.left) / box.width) * this.end());
    };
    this.strip.addEventListener("pointerdown", (event) => { this.strip.setPointerCapture(event.pointerId); this.holding = true; seek(event); });
    this.strip.addEventListener("pointermove", (event) => { if (this.holding) seek(event); });
    for (const name of ["pointerup", "pointercancel"]) this.strip.addEventListener(name, () => { this.holding = false; });
    new ResizeObserver(() => this.drawStrip()).observe(this.strip);
  }

  end() {
    return Math.max(this.drive.t[this.drive.t.length - 1] || 0, 0.001);
  }

  rowAt(time) {
    const { t } = this.drive;
    let [low, high] = [0, t.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (t[middle] <= time + 1e-6) low = middle; else high = middle - 1;
    }
    return low;
  }

  seek(time) {
    const { t } = this.drive;
    if (!t.length) return;
    const low = this.rowAt(Math.min(Math.max(time, 0), this.end()));
    const row = low + 1 < t.length && t[low + 1] - time < time - t[low] ? low + 1 : low;
    this.unfollow(row);
    this.choose_("query", row);
  }

  unfollow(row) {
    if (!this.follower) return;
    this.follow = this.follower.checked = row === this.drive.t.length - 1;
  }

  step(by) {
    const kind = this.drive ? "query" : "place";
    const of = this.drive ? this.drive.t.length : this.places.x.length;
    if (!of) return;
    const from = this.chosen?.kind === kind ? this.chosen.row : by > 0 ? -1 : of;
    const row = Math.min(Math.max(from + by, 0), of - 1);
    if (this.drive) this.unfollow(row);
    this.choose_(kind, row);
  }

  nextProblem() {
    const { t } = this.drive;
    const from = this.chosen?.kind === "query" ? this.chosen.row : -1;
    for (let after = 1; after <= t.length; after += 1) {
      const row = (from + after) % t.length;
      if (this.mood(row) !== "good") return this.choose_("query", row);
    }
  }

  play(on) {
    if (this.playing === on || this.scene.kind === "live") return;
    this.playing = on;
    this.player.textContent = on ? "❚❚" : "▶";
    this.player.setAttribute("aria-pressed", String(on));
    if (!on) return;
    if (this.time >= this.end() - 1e-3) this.choose_("query", 0);
    if (this.chosen?.kind !== "query") this.choose_("query", this.rowAt(this.time));
    let before = performance.now();
    const tick = (now) => {
      if (!this.playing) return;
      this.time += (Math.min(now - before, 250) / 1000) * this.speed;
      before = now;
      const row = this.rowAt(this.time);
      if (row !== this.chosen.row || this.chosen.kind !== "query") {
        const time = this.time;
        this.choose_("query", row);
        this.time = time; // not the image's: playing goes on between images
      } else this.drawStrip();
      this.showTime();
      if (this.time >= this.end()) return this.play(false);
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  showTime() {
    const { row } = this.chosen;
    this.clock.textContent = this.scene.untimed ? `${row + 1} of ${this.drive.t.length}` : `${this.time.toFixed(1)} s`;
    this.strip.setAttribute("aria-valuemax", this.end().toFixed(1));
    this.strip.setAttribute("aria-valuenow", this.time.toFixed(1));
    this.strip.setAttribute("aria-valuetext", `${this.time.toFixed(1)} seconds, ${this.verdict(row)}`);
  }

  drawStrip() {
    const { strip, drive, colours } = this;
    const ratio = this.map?.ratio || 1;
    const [width, height] = [strip.clientWidth, strip.clientHeight];
    if (!width || !this.map) return;
    strip.width = Math.round(width * ratio);
    strip.height = Math.round(height * ratio);
    const context = strip.getContext("2d");
    context.scale(ratio, ratio);
    const end = this.end();
    const base = height - 7;
    const limit = this.scene.correct_within_m || 25;
    // logarithmic: 0.1 m to ten times what is right
    const share = (value) => Math.min(Math.max(Math.log10(Math.max(value, 0.1) / 0.1) / Math.log10((10 * limit) / 0.1), 0.06), 1);
    const bar = Math.min(Math.max((width / Math.max(drive.t.length, 1)) * 0.7, 1), 6);
    const level = base - share(limit) * (base - 4);
    context.strokeStyle = colours.line;
    context.beginPath();
    context.moveTo(0, base + 0.5); context.lineTo(width, base + 0.5);
    context.moveTo(0, level); context.lineTo(width, level);
    context.stroke();
    for (let row = 0; row < drive.t.length; row += 1) {
      const x = (drive.t[row] / end) * (width - bar);
      if (drive.fixed[row]) {
        const value = drive.judged ? drive.error[row] : drive.radius[row];
        const high = share(known(value) ? value : limit) * (base - 4);
        context.fillStyle = known(value) ? ramp(this.badness(row)) : colours.soft;
        context.fillRect(x, base - high, bar, high);
      } else {
        context.fillStyle = colours.doubt;
        context.fillRect(x, base + 2, Math.max(bar, 2), 5);
      }
    }
    const at = (Math.min(this.time, end) / end) * (width - bar) + bar / 2;
    context.fillStyle = colours.ink;
    context.fillRect(at - 1, 0, 2, height);
  }

  // ---- keys

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const on = event.target;
    if (on.closest?.("select, textarea") || (on.tagName === "INPUT" && on.type !== "checkbox")) return;
    if (!this.root.isConnected || (!this.wholeWindow && !this.root.contains(on))) return;
    const far = event.shiftKey ? 10 : 1;
    const acts = {
      ArrowLeft: () => this.step(-far),
      ArrowRight: () => this.step(far),
      Home: () => this.step(-1e9),
      End: () => this.step(1e9),
      Enter: () => this.openDialog(),
    };
    if (this.drive) {
      acts[" "] = () => this.play(!this.playing);
      acts.n = () => this.nextProblem();
    }
    // a button or a box that has the focus takes its own keys
    if ((event.key === " " || event.key === "Enter") && on.closest?.("button, a, summary, input")) return;
    const act = acts[event.key];
    if (act) act();
    else if (!this.map.key(event.key)) return;
    event.preventDefault();
  }

  // ---- a running node: more images of the drive

  // rows: [number, { column: value }]; a number beyond the last is a new image
  update(rows) {
    const { drive } = this;
    for (const [row, values] of rows) for (const [name, value] of Object.entries(values)) if (Array.isArray(drive[name])) drive[name][row] = value;
    drive.order = drive.OX = drive.OY = null;
    this.measure();
    this.buildLegend();
    if (this.follow || !this.chosen) this.choose_("query", drive.t.length - 1);
    else { this.showChosen(); this.redraw(); }
  }
}

function outline(quad) {
  const space = "http://www.w3.org/2000/svg";
  const drawing = document.createElementNS(space, "svg");
  drawing.setAttribute("viewBox", "-1 -1 2 2");
  drawing.setAttribute("preserveAspectRatio", "none");
  const polygon = document.createElementNS(space, "polygon");
  polygon.setAttribute("points", quad.map((value) => value.toFixed(3)).join(" "));
  drawing.append(polygon);
  return drawing;
}
