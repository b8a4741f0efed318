// The page around a student that runs in the browser.
import { Student } from "./live.js";

const at = (id) => document.getElementById(id), boxes = [...document.querySelectorAll("[data-text]")];
const stored = JSON.parse(at("stored").textContent), key = (row) => row.join("\n");
const teacher = new Map(stored.map(({ row, teacher }) => [key(row), teacher]));
const add = (parent, tag, text, of = "") => {
  const it = document.createElement(tag);
  it.textContent = text;
  it.className = of;
  parent.append(it);
  return it;
};
const percent = (p) => `${(100 * p).toFixed(1)} %`;

// A score as a number for each model.
function write([name], answers) {
  at("bars").replaceChildren();
  Object.entries(answers).forEach(([who, [score]], k) => {
    add(at("bars"), "span", k ? "" : name);
    add(at("bars"), "span", who, "faint");
    add(at("bars"), "b", score.toFixed(3), `score ${who}`);
    add(at("bars"), "span", "");
  });
}

// Probabilities of classes or labels as bars; labels have a threshold, above which they apply.
function draw(labels, answers, thresholds) {
  at("bars").replaceChildren();
  labels.forEach((label, c) => {
    Object.entries(answers).forEach(([who, p], k) => {
      add(at("bars"), "span", k ? "" : label);
      add(at("bars"), "span", who, "faint");
      const place = add(at("bars"), "div", "", "place");
      add(place, "div", "", `bar ${who}`).style.width = `${100 * p[c]}%`;
      if (thresholds) add(place, "div", "", "threshold").style.left = `${100 * thresholds[who][c]}%`;
      add(at("bars"), "span", percent(p[c]));
    });
  });
}

async function start() {
  const student = globalThis.zskd = await Student.load(), { labels, kind } = student.about, half = labels.map(() => 0.5);
  const thresholds = kind === "multi_label" && { teacher: half, student: student.about.thresholds ?? half };
  let turn = 0;
  const answer = async () => {
    const row = boxes.map((box) => box.value), mine = ++turn;
    if (row.every((text) => !text.trim())) {
      at("bars").replaceChildren();
      return at("state").textContent = "Type a text.";
    }
    const began = performance.now(), encoded = student.encode(row), p = await student.answer(encoded), took = performance.now() - began;
    if (mine !== turn) return;
    const { cut, unknown } = encoded;
    const hints = [
      cut && `It reads only the first ${student.about.max_length} pieces of this text.`,
      unknown && `It does not know ${unknown} of its pieces.`,
    ];
    at("state").textContent = [`The student answered in ${took.toFixed(1)} ms.`, ...hints.filter(Boolean)].join(" ");
    const known = teacher.get(key(row));
    (kind === "score" ? write : draw)(labels, known ? { teacher: known, student: p } : { student: p }, thresholds);
  };
  boxes.forEach((box) => box.addEventListener("input", answer));
  const name = (p, who) => {
    if (kind === "score") return p[0].toFixed(3);
    if (kind === "multi_label") return labels.filter((_, c) => p[c] > thresholds[who][c]).join(", ") || "(none)";
    const c = p.indexOf(Math.max(...p));
    return `${labels[c]}, ${percent(p[c])}`;
  };
  for (const { row, teacher } of stored) {
    const line = add(at("examples"), "tr", ""), button = add(add(line, "td", ""), "button", row.join(" | "));
    button.addEventListener("click", () => { boxes.forEach((box, k) => box.value = row[k]); answer(); scrollTo({ top: 0, behavior: "smooth" }); });
    add(line, "td", name(teacher, "teacher")).dataset.who = "teacher";
    add(line, "td", name(await student.probabilities(row), "student")).dataset.who = "student";
  }
  if (stored.length && !boxes[0].value) boxes.forEach((box, k) => box.value = stored[0].row[k]);
  await answer();
}
start().catch((error) => at("state").textContent = `The student cannot be loaded: ${error.message}. The page needs a web server; python -m http.server will do.`);
