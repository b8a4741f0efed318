// A student that runs in the browser: tokens by @huggingface/tokenizers, numbers by onnxruntime-web, both from the folder of this file.
import * as ort from "./runtime/ort.wasm.min.mjs";
import { Tokenizer } from "./runtime/tokenizers.min.mjs";

const here = (name) => new URL(name, import.meta.url);
const json = async (name) => (await fetch(here(name))).json();
ort.env.wasm.wasmPaths = here("runtime/").href;
ort.env.wasm.numThreads = 1;

// The lengths that the tokenizers library keeps of two texts, the longer one cut first.
export function kept(first, second, most) {
  let [short, long] = [Math.min(first, second), Math.max(first, second)];
  if (short + long <= most) return [first, second];
  long = short > most ? short : Math.max(short, most - short);
  if (short + long > most) [short, long] = [Math.floor(most / 2), Math.ceil(most / 2)];
  return first > second ? [long, short] : [short, long];
}

const softmax = (logits) => {
  const most = Math.max(...logits), powers = logits.map((x) => Math.exp(x - most)), sum = powers.reduce((a, b) => a + b);
  return powers.map((x) => x / sum);
};

// What the logits mean: probabilities of classes, probabilities of labels, or a score.
const values = {
  single_label: softmax,
  multi_label: (logits) => logits.map((x) => 1 / (1 + Math.exp(-x))),
  score: (logits) => logits,
};

export class Student {
  static async load() {
    const [about, model, settings] = await Promise.all(["student/web.json", "student/tokenizer.json", "student/tokenizer_config.json"].map(json));
    const session = await ort.InferenceSession.create(here("student/onnx/model_fp16.onnx").href, { executionProviders: ["wasm"] });
    const unknown = model.model.vocab?.[model.model.unk_token];  // what takes the place of a piece that it does not know
    return Object.assign(new Student(), { about, session, unknown, tokenizer: new Tokenizer(model, settings) });
  }
  pieces(text) {
    return this.tokenizer.encode(text, { add_special_tokens: false }).ids;
  }
  encode(row) {
    const { max_length: most, single, pair } = this.about, texts = row.map((text) => this.pieces(text));
    const frame = row.length === 1 ? single : pair;
    const room = most - frame.reduce((n, part) => n + part.ids.length, 0);
    const lengths = row.length === 1 ? [Math.min(texts[0].length, room)] : kept(texts[0].length, texts[1].length, room);
    const ids = [], types = [];
    frame.forEach((part, k) => {
      ids.push(...part.ids);
      types.push(...part.types);
      if (k < texts.length) {
        ids.push(...texts[k].slice(0, lengths[k]));
        types.push(...Array(lengths[k]).fill(k === 0 ? single[0].text_type : pair[1].text_type));
      }
    });
    const unknown = texts.flat().filter((id) => id === this.unknown).length;
    return { ids, types, unknown, cut: texts.some((text, k) => lengths[k] < text.length) };
  }
  async probabilities(row) {
    return this.answer(this.encode(row));
  }
  async answer({ ids, types }) {
    const long = (values) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
    const tensors = { input_ids: long(ids), attention_mask: long(ids.map(() => 1)), token_type_ids: long(types) };
    const asked = Object.fromEntries(this.session.inputNames.map((name) => [name, tensors[name]]));
    const { logits } = await this.session.run(asked);
    return values[this.about.kind](Array.from(logits.data));
  }
}
