// Loops over Programs driven raw: what runs ahead of the reader is not told of.
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import t from "tap";
import { torch } from "torchformers";
import { root } from "../support/fixtures.js";

const { ProgramLoop, Recordings } = await import(pathToFileURL(join(root, "dist/compile/loop.js")).href);

/** Counts up in `ids`, until a count is reached. */
async function count(until: number, options: object) {
  const [ids, going] = [torch.zeros([2], { dtype: "int64" }), torch.ones([1], { dtype: "int64" })];
  const step = (ids: torch.Tensor, going: torch.Tensor) => {
    ids.add_(1);
    going.copy_(ids.narrow(0, 0, 1).lt(until));
  };
  const stage = new Recordings().stage("count", step, [ids, going]);
  const loop = ProgramLoop.start({ first: [], body: [stage], ids, going, ...options });
  const told: number[] = [];
  let news: {
    ids: number[];
    steps: number;
    ended: boolean;
    paused: boolean;
    graphs: number;
    noGraph: string;
  };
  do {
    news = await loop.next();
    told.push(...news.ids);
    if (news.paused) loop.allow(news.steps + 2);
  } while (!news.ended);
  return { told, made: ids.tolist(), ...news };
}

const pairs = (count: number) => Array.from({ length: 2 * count }, (_, i) => 1 + Math.floor(i / 2));

t.test("a loop tells of each step in order, however far the next ones are", async (t) => {
  for (const ahead of [0, 1, 3]) {
    const { told, made, steps, graphs, noGraph } = await count(5, { ahead });
    t.same(told, pairs(5), `${ahead} ahead: the ids`);
    t.equal(steps, 5);
    t.same(made, [5 + ahead, 5 + ahead], "steps that were under way are done, and not told of");
    t.equal(graphs, 0, "the CPU has no graphs");
    t.equal(noGraph, "", "and nobody asked for one");
  }
});

t.test("at a pause, and after the most steps, nothing runs ahead", async (t) => {
  const paused = await count(7, { ahead: 2, limit: 3 });
  t.same(paused.told, pairs(7));
  const most = await count(100, { ahead: 2, most: 4 });
  t.same([most.told, most.made, most.steps], [pairs(4), [4, 4], 4]);
});
