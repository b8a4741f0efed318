// A table with buttons on its lines: the browser's half of `Table` in zskd/widgets.py.
const add = (parent, tag, text = "") => {
  const it = document.createElement(tag);
  it.textContent = text;
  parent.append(it);
  return it;
};
const isNumber = (text) => /^[\s\d.,%+–-]+$/.test(text);
const kind = (cells) => cells.every(isNumber) ? ["number", "short"] : cells.some((text) => text.length > 40) ? ["long"] : ["short"];
function render({ model, el }) {
  const draw = () => {
    const { columns, lines, actions } = model.get("spec");
    el.replaceChildren();
    el.className = "zskd-table";
    if (!lines.length) return add(el, "p", "nothing to show");
    const table = add(el, "table"), head = add(add(table, "thead"), "tr"), body = add(table, "tbody");
    const kinds = columns.map((_, c) => kind(lines.map((line) => line[c])));
    if (actions.length) add(head, "td");
    columns.forEach((name, c) => add(head, "th", name).classList.add(...kinds[c]));
    lines.forEach((line, k) => {
      const row = add(body, "tr"), buttons = actions.length && add(row, "td"), what = line.find((text) => text.length > 1) ?? "";
      actions.forEach((name) => {
        const button = add(buttons, "button", name);
        button.setAttribute("aria-label", `${name}: ${what}`);
        button.addEventListener("click", () => model.send({ chosen: [name, k] }));
      });
      line.forEach((text, c) => { const cell = add(row, "td"); cell.classList.add(...kinds[c]); if (text) cell.dataset.label = columns[c]; add(cell, "bdi", text); });
    });
  };
  model.on("change:spec", draw);
  draw();
  return () => model.off("change:spec", draw);
}
export default { render };
