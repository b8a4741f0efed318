// What a visitor chose, in the address of a served page: the browser's half of `Address` in zskd/widgets.py.
function render({ model }) {
  if (!document.querySelector('meta[name="zskd-plotly"]')) return;  // a notebook's address is not ours
  const read = () => {
    model.set("opened", Object.fromEntries(new URLSearchParams(location.hash.slice(1))));
    model.save_changes();
  };
  const write = () => {
    const words = new URLSearchParams(model.get("state")), another = words.get("tab") !== new URLSearchParams(location.hash.slice(1)).get("tab");
    // the browser's back button leads to the tab before
    history[another ? "pushState" : "replaceState"](null, "", words.size ? `#${words}` : location.pathname + location.search);
  };
  model.on("change:state", write);
  window.addEventListener("hashchange", read);
  if (location.hash.length > 1) read();
  return () => { model.off("change:state", write); window.removeEventListener("hashchange", read); };
}
export default { render };
