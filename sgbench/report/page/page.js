"use strict";

(() => {
  /** Return an element with a text. */
  const made = (tag, text, name = "") => {
    const element = document.createElement(tag);
    element.textContent = text;
    element.className = name;
    return element;
  };

  // Tables

  const LEADING = /^[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])/;

  /** Return the number that a cell begins with, or null: "0.4124³ ± 0.0037" is 0.4124, "1a2b" and "no run" are none. */
  const number = (cell) => {
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const match = LEADING.exec((cell.firstChild?.textContent ?? "").trim().replace("−", "-"));
    return match ? Number(match[0].replaceAll(",", "")) : null;
  };

  /** Return the cells of some rows as a grid, in which a cell that spans stands in each of its places. */
  const grid = (rows) => {
    const places = rows.map(() => []);
    rows.forEach((row, at) => {
      for (const cell of row.cells) {
        const from = [...places[at], undefined].findIndex((place) => place === undefined);
        for (let down = 0; down < cell.rowSpan; down += 1) {
          for (let across = 0; across < cell.colSpan; across += 1) {
            if (places[at + down]) places[at + down][from + across] = cell;
          }
        }
      }
    });
    return places;
  };

  /** Return a row that has all its cells, and so can stand anywhere. */
  const unspanned = (cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map((cell) => {
      const copy = cell.cloneNode(true);
      copy.removeAttribute("rowspan");
      if (copy.scope === "rowgroup") copy.scope = "row";
      return copy;
    }));
    return row;
  };

  /** Return an order of rows by a column: numbers before words, each kind in the direction, blanks last. */
  const order = (column, sign) => (a, b) => {
    const [first, second] = [a.cells[column], b.cells[column]];
    const [x, y] = [number(first), number(second)];
    if (x !== null && y !== null) return sign * (x - y);
    if (x !== null || y !== null) return x === null ? 1 : -1;
    return sign * first.textContent.localeCompare(second.textContent, "en", { numeric: true });
  };

  /** Give the lowest heads of a table buttons that sort by their columns: ascending, descending, as it was. */
  const sortable = (table) => {
    if (!table.tHead) return; // there is nothing to show yet
    const original = [...table.tBodies];
    const places = grid(original.flatMap((body) => [...body.rows]));
    const heads = grid([...table.tHead.rows]).at(-1);
    const rows = () => places.map(unspanned);
    const sort = (column, direction) => {
      heads.forEach((head, at) => {
        if (at === column && direction !== "none") head.setAttribute("aria-sort", direction);
        else head.removeAttribute("aria-sort");
      });
      const sorted = document.createElement("tbody");
      sorted.append(...rows().sort(order(column, direction === "ascending" ? 1 : -1)));
      for (const body of [...table.tBodies]) body.remove();
      table.tHead.after(...(direction === "none" ? original : [sorted]));
    };
    heads.forEach((head, column) => {
      if (places[0][column]?.tagName === "TH") head.classList.add("text");
      const button = made("button", "");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")] ?? "ascending";
        sort(column, next);
      });
    });
  };

  for (const table of document.querySelectorAll("table.sgbench, table.grid[data-sortable]")) sortable(table);

  // Images

  const source = document.getElementById("viewer-data");
  if (!source) return;
  const { sets, labels, directions, pair } = JSON.parse(source.textContent);
  const part = (name) => document.getElementById(`viewer-${name}`);
  const [set, image, slider, frame, both] = ["set", "image", "slider", "frame", "pair"].map(part);
  const sides = {
    left: { chosen: part("left"), picture: part("left-image"), name: part("left-name"), wanted: pair[0] },
    right: { chosen: part("right"), picture: part("right-image"), name: part("right-name"), wanted: pair[1] },
  };

  const fill = (select, options, selected) => {
    select.replaceChildren(...options.map(([value, text]) => new Option(text, value, false, value === selected)));
  };
  const shown = () => sets[set.value].images[image.value];

  const move = () => {
    both.style.setProperty("--share", `${slider.value}%`);
    const share = Math.round(slider.value);
    slider.setAttribute("aria-valuetext", `${share}% ${sides.left.name.textContent}, ${100 - share}% ${sides.right.name.textContent}`);
  };

  /** Set the size: so many pixels of the screen for one of the image, or as large as there is room, at most two. */
  const zoom = () => {
    const { width, height } = shown();
    const factor = Number(document.querySelector("input[name=zoom]:checked").value);
    frame.style.width = factor ? "fit-content" : `min(100%, ${2 * width}px, 80vh * ${width / height})`;
    both.style.width = factor ? `${width * factor}px` : "100%";
    both.style.aspectRatio = `${width} / ${height}`;
  };

  const score = (value, other, direction) => {
    const cell = made("td", value ? value[0] : "–", value ? "" : "none");
    const sign = { lower: -1, higher: 1 }[direction] ?? 0;
    if (value && other && sign * (value[1] - other[1]) > 0) cell.className = "best";
    return cell;
  };

  const draw = () => {
    const { name, sources, scores } = shown();
    for (const side of Object.values(sides)) {
      side.wanted = side.chosen.value;
      side.picture.src = sources[side.wanted];
      side.picture.alt = `${name}: ${labels[side.wanted]}`;
      side.name.textContent = labels[side.wanted];
    }
    const [left, right] = [sides.left, sides.right].map((side) => scores[side.wanted] ?? {});
    const rows = Object.entries(directions).map(([metric, direction]) => {
      const row = document.createElement("tr");
      const head = made("th", `${metric} ${{ lower: "↓", higher: "↑" }[direction] ?? ""}`);
      head.scope = "row";
      row.append(head, score(left[metric], right[metric], direction), score(right[metric], left[metric], direction));
      return row;
    });
    part("scores").tBodies[0].replaceChildren(...rows);
    zoom();
    move();
  };

  /** Offer the sides that an image has, and keep those that were chosen if they are among them. */
  const offerSides = () => {
    const keys = Object.keys(labels).filter((key) => key in shown().sources);
    const spare = { left: keys[0], right: keys[1] ?? keys[0] };
    for (const [at, side] of Object.entries(sides)) {
      fill(side.chosen, keys.map((key) => [key, labels[key]]), keys.includes(side.wanted) ? side.wanted : spare[at]);
    }
    draw();
  };

  const offerImages = () => {
    fill(image, sets[set.value].images.map(({ name }, at) => [String(at), name]), "0");
    offerSides();
  };

  set.addEventListener("change", offerImages);
  image.addEventListener("change", offerSides);
  for (const side of Object.values(sides)) side.chosen.addEventListener("change", draw);
  for (const choice of document.querySelectorAll("input[name=zoom]")) choice.addEventListener("change", zoom);
  slider.addEventListener("input", move);
  fill(set, sets.map(({ name }, at) => [String(at), name]), "0");
  offerImages();
  part("left-image").closest("[hidden]").hidden = false;
})();
