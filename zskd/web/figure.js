// A figure of plotly in a notebook or on a served page: the browser's half of `Figure` in zskd/widgets.py.
const load = (model) => globalThis.zskdPlotly ??= new Promise((done, failed) => {
  const script = document.createElement("script");
  script.onload = () => done(globalThis.Plotly);
  script.onerror = () => { globalThis.zskdPlotly = undefined; failed(new Error("its script cannot be loaded")); };
  const run = (url) => { script.src = url; document.head.append(script); };
  const served = document.querySelector('meta[name="zskd-plotly"]');
  if (served) return run(served.content);
  model.on("msg:custom", (_, [source]) => run(URL.createObjectURL(new Blob([source], { type: "text/javascript" }))));
  model.send({ wants: "plotly" });
});
const isDark = () => document.body.dataset.jpThemeLight === "false";  // as Jupyter says it
const set = (object, path, value) => {
  const keys = path.split("."), last = keys.pop();
  keys.reduce((inner, key) => inner[key] ??= {}, object)[last] = value;
};
async function render({ model, el }) {
  const box = document.createElement("div");
  box.textContent = "The figure is being loaded.";
  el.style.width = "100%";
  el.append(box);
  let Plotly, version = 0, seen = "", turn = Promise.resolve();
  const paint = async () => {
    const now = [version, el.clientWidth, isDark()].join();
    if (!Plotly || !el.clientWidth || now === seen) return;
    const first = !seen;
    seen = now;
    const { data, layout, dark } = structuredClone(model.get("spec"));
    if (isDark()) Object.entries(dark).forEach(([path, value]) => set(layout, path, value));
    if (first) box.textContent = "";
    await Plotly.react(box, data, { ...layout, width: el.clientWidth, uirevision: "kept" }, { displayModeBar: false });
    if (first) box.on("plotly_click", ({ points: [{ x, y }] }) => model.send({ clicked: [x, y] }));
  };
  const fails = (error) => { seen = ""; box.textContent = `The figure could not be drawn: ${error.message}. Reload the page to try again.`; };
  const draw = () => turn = turn.then(paint).catch(fails);
  const changed = () => { version++; draw(); };
  const watch = new ResizeObserver(draw), themes = new MutationObserver(draw);
  watch.observe(el);
  themes.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
  model.on("change:spec", changed);
  load(model).then((it) => { Plotly = it; model.set("started", true); model.save_changes(); draw(); }, fails);
  return () => { watch.disconnect(); themes.disconnect(); model.off("change:spec", changed); Plotly?.purge(box); };
}
export default { render };
