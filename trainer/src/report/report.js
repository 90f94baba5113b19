"use strict";
// Reads the value under the pointer, or step by step with the arrow keys. The page says the same without it.
for (const plot of document.querySelectorAll("svg.curves")) {
  const curves = [...plot.querySelectorAll("path[data-steps]")].map((path) => ({
    name: path.dataset.name,
    steps: path.dataset.steps.split(",").map(Number),
    values: path.dataset.values.split(",").map(Number),
    // Coordinates come in pairs; the first of each lies between 0 and 1000.
    places: path.getAttribute("d").match(/[\d.]+/g).map(Number).filter((_, at) => at % 2 === 0),
  }));
  const readout = plot.closest("figure").querySelector("output");
  const cross = document.createElementNS("http://www.w3.org/2000/svg", "line");
  cross.setAttribute("class", "cross");
  cross.setAttribute("y2", "100%");
  const write = (value) => {
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(3);
    return value.toLocaleString("en", { maximumFractionDigits: size < 1000 ? 4 : 0 });
  };
  const nearest = (places, place) => {
    let low = 0;
    let high = places.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (places[middle] < place) low = middle;
      else high = middle;
    }
    return place - places[low] < places[high] - place ? low : high;
  };
  let place = -1;
  const show = (wanted) => {
    place = curves[0].places[nearest(curves[0].places, wanted)];
    const parts = curves.map((curve) => {
      const at = nearest(curve.places, place);
      return `${curve.name} ${write(curve.values[at])} at step ${curve.steps[at].toLocaleString("en")}`;
    });
    readout.textContent = parts.join("; ");
    cross.setAttribute("x1", `${place / 10}%`);
    cross.setAttribute("x2", `${place / 10}%`);
    plot.append(cross);
  };
  const hide = () => {
    cross.remove();
    readout.textContent = "";
  };
  plot.setAttribute("tabindex", "0");
  plot.parentElement.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    show((1000 * (event.clientX - box.left)) / box.width);
  });
  plot.parentElement.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!way) return;
    event.preventDefault();
    const places = curves[0].places;
    const at = place < 0 ? 0 : nearest(places, place) + way;
    show(places[Math.min(Math.max(at, 0), places.length - 1)]);
  });
}
